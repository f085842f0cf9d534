from collections.abc import Callable

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from onex_distill.engine.job import Job
from onex_distill.engine.launch import launch
from onex_distill.engine.randomness import generator, seeded
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.text import encode_prompts
from onex_distill.models.velocity import predict_velocity
from onex_distill.pretraining import architecture as tiny
from onex_distill.pretraining import training as pretraining
from onex_distill.shapes.captions import all_captions, named_attributes
from onex_distill.shapes.networks import ShapesReader
from onex_distill.shapes.render import render
from onex_distill.shapes.world import VALUES, sample_attributes
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
def first(jobs, tmp_path) -> Callable[..., tuple[Job, pd.Series]]:
    """``first(name, **changes)`` is a job and the losses of its first step, of a network that has not moved yet."""

    def run(name: str, **changes) -> tuple[Job, pd.Series]:
        job = jobs(name, tmp_path / "first", **changes)
        return job, pd.read_parquet(launch(job) / "losses.parquet").iloc[0]

    return run


def test_the_transformer_regresses_noise_less_x0_at_shifted_levels(first):
    job, losses = first("transformer")
    params, table = job.params, job.latents.open()
    draws = generator(params.seed, 0, "flow")
    rows = torch.randint(len(table), (params.batch_size,), generator=draws)
    u = torch.sigmoid(params.sigma_mean + params.sigma_std * torch.randn(params.batch_size, generator=draws))
    noise = torch.randn((params.batch_size, 4, 8, 8), generator=draws)
    dropped = torch.rand(params.batch_size, generator=draws) < params.caption_dropout
    assert len(set(dropped.tolist())) == 2
    texts = [text * (not drop) for text, drop in zip(table.index["text"].iloc[rows], dropped.tolist(), strict=True)]
    encoders = job.text_components.load(transformer=None, vae=None)
    prompts = PromptBatch(*encode_prompts(encoders, texts, job.architecture.max_tokens))
    latents = table.column("latent")
    x0, sigma = ((latents - latents.mean()) / latents.std())[rows], 2 * u / (1 + u)  # of a shift of 2
    with seeded(params.seed):
        network = tiny.build_transformer(job.architecture)
    level = sigma[:, None, None, None]
    with torch.no_grad():
        velocity = predict_velocity(network, (1 - level) * x0 + level * noise, sigma, prompts)
    assert losses["loss"] == pytest.approx(float((velocity - (noise - x0)).square().mean()), rel=1e-4)


def test_the_reader_sees_scenes_through_noise_and_learns_their_attributes(first):
    job, losses = first("reader")
    params, draws = job.params, generator(job.params.seed, 0, "scenes")
    scenes = sample_attributes(params.batch_size, draws)
    images = render(scenes, draws)
    noise = torch.randn(images.shape, generator=generator(params.seed, 0, "pixel noise"))
    strength = torch.rand(len(images), 1, 1, 1, generator=generator(params.seed, 0, "noise strength"))
    with seeded(params.seed):
        reader = ShapesReader(params.channels, params.feature_dim)
    logits = reader(images + 0.1 * strength * noise)
    chances = {name: logits[name].softmax(1).gather(1, scenes[name][:, None]) for name in VALUES}
    expected = sum(-float(chance.log().mean().detach()) for chance in chances.values())
    assert losses["loss"] == pytest.approx(expected, rel=1e-4)


def test_the_autoencoders_loss_weighs_its_parts(first):
    _, losses = first("autoencoder", kl_weight=0.25)
    weighed = losses["pixel"] + 0.5 * losses["edge"] + 0.25 * losses["kl"]
    assert losses["loss"] == pytest.approx(weighed, rel=1e-5)
    assert losses[["pixel", "edge", "kl"]].min() > 1e-4


def test_edges_are_differences_of_neighbours_across_and_down():
    target = torch.zeros(1, 1, 3, 3)
    across, down = target.clone(), target.clone()
    across[..., 1:] = 1.0  # one of two differences in every row
    down[:, :, 2] = 2.0
    assert float(pretraining._edge_loss(across, target)) == pytest.approx(1 / 2)
    assert float(pretraining._edge_loss(down, target)) == pytest.approx(4 / 2)
    assert float(pretraining._edge_loss(across + 7, across)) == pytest.approx(0)


def test_text_encoders_learn_what_their_own_captions_name(first):
    job, losses = first("text_encoders")
    params, captions = job.params, job.captions.read()
    draws = generator(params.seed, 0, "captions")
    texts = captions["text"].iloc[torch.randint(len(captions), (params.batch_size,), generator=draws)].tolist()
    pipeline = pretraining._text_components(captions["text"], job.architecture, params.seed)
    clips, t5 = (pipeline.text_encoder, pipeline.text_encoder_2), pipeline.text_encoder_3
    with seeded(params.seed):
        reader = pretraining.CaptionReader(tuple(clip.config.projection_dim for clip in clips), t5.config.d_model)
    padding = {"padding": "max_length", "max_length": 6, "truncation": True, "return_tensors": "pt"}
    tokens = [tokenizer(texts, **padding).input_ids for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2)]
    pooled = [clip.train()(ids).text_embeds for clip, ids in zip(clips, tokens, strict=True)]
    pooled.append(t5.train()(pipeline.tokenizer_3(texts, **padding).input_ids).last_hidden_state.mean(1))
    named = named_attributes(texts)
    expected = [
        -float(heads[name](seen).log_softmax(1).gather(1, named[name][:, None]).mean().detach())
        for seen, heads in zip(pooled, reader.heads, strict=True)
        for name in named
    ]
    assert losses["loss"] == pytest.approx(sum(expected) / 9, rel=1e-4)


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
