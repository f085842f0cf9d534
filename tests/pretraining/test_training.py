from collections.abc import Callable

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from onex_distill.engine.launch import launch
from onex_distill.engine.randomness import seeded
from onex_distill.pretraining import architecture as tiny
from onex_distill.pretraining import training as pretraining
from onex_distill.shapes.captions import all_captions
from onex_distill.shapes.world import VALUES
from onex_distill.storage.frame import store_frame
from onex_distill.storage.model_folder import ModelFolder

NETWORKS = {
    "reader": "onex_distill.shapes.networks.ShapesReader",
    "autoencoder": "diffusers.AutoencoderKL",
    "text_encoders": "diffusers.StableDiffusion3Pipeline",
    "transformer": "diffusers.SD3Transformer2DModel",
}
Train = Callable[..., nn.Module]


@pytest.fixture
def trained(jobs, tmp_path) -> Train:
    """``trained(name, **changes)`` runs a job in a folder of its own and loads what it made."""
    folders = iter(range(100))

    def train(name: str, **changes) -> nn.Module:
        result = launch(jobs(name, tmp_path / str(next(folders)), **changes))
        path = result / ("text_components" if name == "text_encoders" else name)
        model = ModelFolder(path=path, class_name=NETWORKS[name])
        if name != "text_encoders":
            return model.load()
        pipeline = model.load(transformer=None, vae=None)
        return nn.ModuleList([pipeline.text_encoder, pipeline.text_encoder_2, pipeline.text_encoder_3])

    return train


def weights(module: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(module.parameters())


@pytest.mark.parametrize("network", NETWORKS)
def test_resuming_equals_running_through(network, jobs, tmp_path, interrupt, assert_same_result):
    torch.manual_seed(1)
    whole = launch(jobs(network, tmp_path / "whole"))
    torch.manual_seed(2)
    with interrupt(pretraining, 3):
        launch(jobs(network, tmp_path / "parts"))
    assert (tmp_path / "parts/step-00000002").is_dir()
    assert not (tmp_path / "parts/result").exists()
    assert_same_result(whole, launch(jobs(network, tmp_path / "parts")))


@pytest.mark.parametrize("network", NETWORKS)
def test_the_seed_fixes_the_weights(network, trained):
    torch.manual_seed(1)
    first = weights(trained(network, seed=5))
    torch.manual_seed(2)
    assert torch.equal(weights(trained(network, seed=5)), first)
    assert not torch.equal(weights(trained(network, seed=6)), first)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_comes_back_ready_for_use(network, trained):
    made = trained(network)
    assert not any(module.training for module in (made if network == "text_encoders" else made.modules()))


@pytest.mark.parametrize("network", NETWORKS)
def test_every_step_of_the_history_is_there(network, jobs, tmp_path):
    losses = pd.read_parquet(launch(jobs(network, tmp_path)) / "losses.parquet")
    assert losses["step"].tolist() == [0, 1, 2, 3]
    assert losses[["loss", "grad_norm"]].notna().all().all()
    assert (losses["grad_norm"] > 0).all()


@pytest.fixture
def embeddings() -> tuple[Tensor, Tensor]:
    """Embeddings of four captions and, last, of the empty prompt."""
    draws = torch.Generator().manual_seed(0)
    return torch.randn(5, 12, 16, generator=draws), torch.randn(5, 16, generator=draws)


def changed(embeddings: tuple[Tensor, Tensor], rows: slice) -> tuple[Tensor, Tensor]:
    others = tuple(table.clone() for table in embeddings)
    for table in others:
        table[rows] += 1
    return others


@pytest.mark.parametrize(
    ("dropout", "rows"), [(0.0, slice(4, 5)), (1.0, slice(0, 4))], ids=["empty unused", "captions unused"]
)
def test_dropout_decides_which_prompts_are_read(trained, embeddings, monkeypatch, dropout, rows):
    kept = slice(0, 4) if dropout == 0 else slice(4, 5)
    tables = {"same": embeddings, "unread": changed(embeddings, rows), "read": changed(embeddings, kept)}
    results = {}
    for name, table in tables.items():
        monkeypatch.setattr(pretraining, "encode_prompts", lambda pipeline, texts, tokens, table=table: table)
        results[name] = weights(trained("transformer", caption_dropout=dropout))
    assert torch.equal(results["same"], results["unread"])
    assert not torch.equal(results["same"], results["read"])


def test_every_caption_is_encoded_once_and_the_empty_prompt_last(trained, prompt_tables, monkeypatch):
    asked = []
    encode = pretraining.encode_prompts
    monkeypatch.setattr(pretraining, "encode_prompts", lambda *args: asked.append(args[1]) or encode(*args))
    trained("transformer")
    assert asked == [[*sorted(prompt_tables.prompts.index["text"]), ""]]


def test_the_averaged_weights_are_returned(trained, architecture):
    with seeded(3):
        start = weights(tiny.build_transformer(architecture))
    slow, fast = ((weights(trained("transformer", ema_decay=decay)) - start).norm() for decay in (0.999, 0.0))
    assert 0 < slow < fast


def test_latents_are_brought_to_zero_mean_and_unit_variance(trained, inputs, tmp_path):
    table = inputs.latents.open()
    moved = table.write(tmp_path / "moved", table.index, {"latent": 3 * table.column("latent") + 7})
    expected, found = trained("transformer"), trained("transformer", latents=moved.handle)
    # four steps of AdamW at 1e-2 blow rounding up, yet stay far below the distance that they go
    assert (weights(found) - weights(expected)).abs().median() < 1e-5


def test_the_reader_reads_every_attribute(trained, jobs, tmp_path):
    readings = trained("reader").read(torch.rand(5, 3, 32, 32))
    for name, values in VALUES.items():
        assert readings[name].shape == (5,)
        assert readings[name].max() < len(values)
    history = pd.read_parquet(launch(jobs("reader", tmp_path / "again")) / "losses.parquet")
    assert history["all_right"].between(0, 1).all()


def test_text_encoders_learn_from_training_captions_alone(trained, tmp_path):
    captions = all_captions().iloc[:24].reset_index(drop=True)
    captions["split"] = ["train"] * 20 + ["heldout"] * 4
    shuffled = captions.iloc[[*range(20), 23, 22, 21, 20]].reset_index(drop=True)
    joined = captions.assign(split="train")
    first, same, other = (
        weights(trained("text_encoders", captions=store_frame(frame, tmp_path / f"{name}.parquet")))
        for name, frame in (("first", captions), ("shuffled", shuffled), ("joined", joined))
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
