from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from onex_distill.engine import pretraining
from onex_distill.models import tiny
from onex_distill.shapes.captions import all_captions, named_attributes
from onex_distill.shapes.world import VALUES

Run = tuple[nn.Module, pd.DataFrame]


@pytest.fixture
def base(optimizer, loop) -> dict:
    return {"seed": 3, "batch_size": 4, "loop": loop, "optimizer": optimizer}


@pytest.fixture
def flow(base) -> pretraining.FlowParams:
    return pretraining.FlowParams(
        **base, caption_dropout=0.5, sigma_mean=0.0, sigma_std=1.0, sigma_shift=2.0, ema_decay=0.5
    )


@pytest.fixture
def embeddings() -> tuple[Tensor, Tensor]:
    """Embeddings of five captions and, last, of the empty prompt."""
    draws = torch.Generator().manual_seed(0)
    return torch.randn(6, 12, 16, generator=draws), torch.randn(6, 16, generator=draws)


def run_reader(base: dict, run_dir: Path) -> Run:
    params = pretraining.ReaderParams(**base, channels=(8, 8), feature_dim=8, pixel_noise=0.1)
    return pretraining.train_reader(params, run_dir)


def run_autoencoder(base: dict, architecture: tiny.ArchitectureParams, run_dir: Path) -> Run:
    params = pretraining.AutoencoderParams(**base, kl_weight=1e-6, edge_weight=0.5, bf16=False)
    with tiny.seeded(1):
        autoencoder = tiny.build_autoencoder(architecture)
    return pretraining.train_autoencoder(autoencoder, params, run_dir)


def run_text_encoders(base: dict, architecture: tiny.ArchitectureParams, words: list[str], run_dir: Path) -> Run:
    texts = list(all_captions()["text"][:20])
    tokenizers = tiny.build_tokenizers(words, architecture.max_tokens)
    with tiny.seeded(1):
        clip, clip_2, t5 = tiny.build_text_encoders(architecture, tokenizers[0], tokenizers[2])
    padding = {"padding": "max_length", "max_length": architecture.max_tokens, "truncation": True}
    token_ids = [torch.tensor(tokenizer(texts, **padding).input_ids) for tokenizer in tokenizers]
    params = pretraining.PretrainingParams(**base)
    history = pretraining.train_text_encoders([clip, clip_2], t5, token_ids, named_attributes(texts), params, run_dir)
    return nn.ModuleList([clip, clip_2, t5]), history


def run_transformer(
    params: pretraining.FlowParams,
    architecture: tiny.ArchitectureParams,
    embeddings: tuple[Tensor, Tensor],
    run_dir: Path,
) -> Run:
    draws = torch.Generator().manual_seed(1)
    latents = torch.randn(10, 4, 8, 8, generator=draws)
    rows = torch.randint(5, (10,), generator=draws)
    with tiny.seeded(2):
        transformer = tiny.build_transformer(architecture)
    return pretraining.train_transformer(transformer, latents, rows, *embeddings, params, run_dir)


@pytest.mark.parametrize("network", ["reader", "autoencoder", "text_encoders", "transformer"])
def test_resuming_equals_running_through(
    network, tmp_path, base, flow, architecture, words, embeddings, interrupt, assert_same_run
):
    runs = {
        "reader": lambda folder: run_reader(base, folder),
        "autoencoder": lambda folder: run_autoencoder(base, architecture, folder),
        "text_encoders": lambda folder: run_text_encoders(base, architecture, words, folder),
        "transformer": lambda folder: run_transformer(flow, architecture, embeddings, folder),
    }
    run = runs[network]
    torch.manual_seed(1)
    whole = run(tmp_path / "whole")
    torch.manual_seed(2)
    with interrupt(pretraining, 3):
        run(tmp_path / "parts")
    assert_same_run(whole, run(tmp_path / "parts"))


def weights(run: Run) -> Tensor:
    return nn.utils.parameters_to_vector(run[0].parameters())


def changed(embeddings: tuple[Tensor, Tensor], rows: slice) -> tuple[Tensor, Tensor]:
    others = tuple(table.clone() for table in embeddings)
    for table in others:
        table[rows] += 1
    return others


@pytest.mark.parametrize(
    ("dropout", "rows"), [(0.0, slice(5, 6)), (1.0, slice(0, 5))], ids=["empty unused", "captions unused"]
)
def test_dropout_decides_which_prompts_are_read(tmp_path, flow, architecture, embeddings, dropout, rows):
    params = flow.model_copy(update={"caption_dropout": dropout})
    kept = slice(0, 5) if dropout == 0 else slice(5, 6)
    tables = {"same": embeddings, "unread": changed(embeddings, rows), "read": changed(embeddings, kept)}
    results = {
        name: weights(run_transformer(params, architecture, table, tmp_path / name)) for name, table in tables.items()
    }
    assert torch.equal(results["same"], results["unread"])
    assert not torch.equal(results["same"], results["read"])


def test_the_averaged_weights_are_returned(tmp_path, flow, architecture, embeddings):
    slow = flow.model_copy(update={"ema_decay": 0.999})
    fast = flow.model_copy(update={"ema_decay": 0.0})
    with tiny.seeded(2):
        start = nn.utils.parameters_to_vector(tiny.build_transformer(architecture).parameters())
    moved = [
        (weights(run_transformer(params, architecture, embeddings, tmp_path / name)) - start).norm()
        for name, params in (("slow", slow), ("fast", fast))
    ]
    assert 0 < moved[0] < moved[1]


def test_the_reader_comes_back_ready_to_read_every_attribute(tmp_path, base):
    reader, history = run_reader(base, tmp_path)
    assert not reader.training
    readings = reader.read(torch.rand(5, 3, 32, 32))
    for name, values in VALUES.items():
        assert readings[name].shape == (5,)
        assert readings[name].max() < len(values)
    assert history["all_right"].between(0, 1).all()
