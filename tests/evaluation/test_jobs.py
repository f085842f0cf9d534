import logging

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from onex_distill.cache.block_cache import BlockCache
from onex_distill.cache.compensation import Compensation
from onex_distill.cache.plan import Bands, reuse_after_first
from onex_distill.engine.launch import launch
from onex_distill.engine.randomness import seeded
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.run import STOP_FILE
from onex_distill.errors import Interrupted
from onex_distill.evaluation import jobs as sampling
from onex_distill.evaluation.jobs import DecodingJob, load_decoder
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.noise import noise_from_seeds
from onex_distill.models.prompts import read_prompts
from onex_distill.models.sampling import Guidance, decode_latents, sample_latents
from onex_distill.models.text import encode_prompts
from onex_distill.storage.image_table import ImageTable
from onex_distill.storage.model_folder import ModelFolder, save_model
from onex_distill.storage.tensor_table import TensorTable

CPU = torch.device("cpu")
BAND = (1, 3)


@pytest.fixture
def sampled(jobs, tmp_path):
    """``sampled(**changes)`` runs a sampling job in a folder of its own and opens its table."""
    folders = iter(range(100))

    def sample(**changes) -> TensorTable:
        return TensorTable(launch(jobs("sampling", tmp_path / str(next(folders)), **changes)) / "samples")

    return sample


@pytest.fixture
def sampled_images(jobs, tmp_path):
    """The same with an autoencoder: a table of images."""
    folders = iter(range(100))

    def sample(**changes) -> ImageTable:
        return ImageTable(launch(jobs("sampling", tmp_path / f"images {next(folders)}", **changes)) / "samples")

    return sample


@pytest.fixture
def compensation(tmp_path) -> ModelFolder:
    """One that corrects strongly."""
    with seeded(3):
        network = Compensation(16, [[BAND], [(2, 3)]], "residual_mlp")
        for function in network.image.values():
            nn.init.normal_(function.down.weight)
    save_model(network, tmp_path / "compensation")
    name = "onex_distill.Compensation"
    return ModelFolder(path=tmp_path / "compensation", class_name=name)


def expected(
    inputs,
    guidance_scale: float = 1.0,
    alpha: float = 1.0,
    compensation: ModelFolder | None = None,
    bands: Bands = (BAND,),
) -> Tensor:
    """Latents of the whole plan in one batch."""
    plan, transformer = inputs.plan.read(), inputs.teacher.transformer.load()
    cache = None
    if compensation is not None:
        cache = BlockCache(transformer, reuse_after_first(bands, 2), compensation.load()).attach()
    return sample_latents(
        transformer,
        noise_from_seeds(plan["noise_seed"], (4, 8, 8)),
        step_sigmas(2, 3.0),
        read_prompts(inputs.embeddings.open(), plan["prompt_row"].to_numpy(), CPU),
        Guidance(guidance_scale, read_prompts(inputs.empty.open(), [0], CPU), alpha) if guidance_scale > 1 else None,
        None if cache is None else cache.begin_step,
    )


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
def test_rows_are_sampled_alike_in_any_batch(sampled, inputs, batch_size):
    table = sampled(batch_size=batch_size)
    close(table.column("latent"), expected(inputs))
    pd.testing.assert_frame_equal(table.index, inputs.plan.read())
    assert (table.column("seconds") > 0).all()


def test_guided_samples_are_those_of_the_guided_sampler(sampled, inputs):
    found = sampled(guidance_scale=3.0).column("latent")
    close(found, expected(inputs, 3.0))
    assert not torch.allclose(found, expected(inputs), atol=1e-3)


def test_below_alpha_alone_samples_are_guided(sampled, inputs):
    found = sampled(guidance_scale=3.0, alpha=0.8).column("latent")  # sigmas 1 and 0.75
    close(found, expected(inputs, 3.0, 0.8))
    for other in (1.0, 0.5):
        assert not torch.allclose(found, expected(inputs, 3.0, other), atol=1e-3)
    close(sampled(guidance_scale=3.0, alpha=0.5).column("latent"), expected(inputs))


@pytest.mark.parametrize("band", [BAND, (2, 3)])
def test_a_compensation_brings_the_block_cache_along(sampled, inputs, compensation, band):
    found = sampled(compensation=compensation, bands=(band,)).column("latent")
    close(found, expected(inputs, compensation=compensation, bands=(band,)))
    assert not torch.allclose(found, expected(inputs), atol=1e-3)


def test_a_compensation_without_bands_runs_every_block(sampled, inputs, compensation):
    close(sampled(compensation=compensation, bands=()).column("latent"), expected(inputs))


def test_with_an_autoencoder_the_table_holds_images(sampled_images, inputs):
    table = sampled_images(autoencoder=inputs.teacher.autoencoder)
    images = table.read(range(5))
    assert (table.index["seconds"] > 0).all()
    assert (images.shape, images.dtype) == ((5, 3, 32, 32), torch.uint8)
    decoded = decode_latents(inputs.teacher.autoencoder.load(), expected(inputs)).detach().clamp(0, 1)
    assert (images / 255 - decoded).abs().max() < 0.6 / 255


def test_latents_that_are_there_are_decoded_to_the_same_images(sampled, sampled_images, inputs, compute, tmp_path):
    latents = sampled()
    job = DecodingJob(
        folder=tmp_path / "decoding",
        compute=compute,
        autoencoder=inputs.teacher.autoencoder,
        latents=latents.handle,
        method="teacher",
        batch_size=3,
        files=False,
    )
    table = TensorTable(launch(job) / "samples")
    files = ImageTable(launch(job.model_copy(update={"folder": tmp_path / "files", "files": True})) / "samples")
    direct = sampled_images(autoencoder=inputs.teacher.autoencoder).read(range(5))
    assert (table.column("image").int() - direct.int()).abs().max() <= 1
    assert torch.equal(files.read(range(5)), table.column("image"))
    assert table.index["method"].tolist() == ["teacher"] * 5
    assert table.index["noise_seed"].tolist() == latents.index["noise_seed"].tolist()
    assert (table.column("seconds") > latents.column("seconds")).all()


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_embeddings_are_those_of_the_encoders_whatever_the_batch(jobs, inputs, tmp_path, batch_size):
    table = TensorTable(launch(jobs("embedding", tmp_path, batch_size=batch_size)) / "embeddings")
    prompts = inputs.captions.read()
    embeds, pooled = encode_prompts(inputs.teacher.load_text_pipeline(), prompts["text"].tolist(), 6)
    close(table.column("prompt_embeds"), embeds)
    close(table.column("pooled_prompt_embeds"), pooled)
    pd.testing.assert_frame_equal(table.index, prompts)


@pytest.fixture
def counted(monkeypatch):
    """Batches that were sampled; set ``stop_in`` to a run folder to leave a request to stop after the second."""

    class Counter:
        batches = 0
        stop_in = None

    def counting(*args, **kwargs):
        Counter.batches += 1
        if Counter.batches == 2 and Counter.stop_in is not None:
            (Counter.stop_in / STOP_FILE).touch()
        return sample_latents(*args, **kwargs)

    monkeypatch.setattr(sampling, "sample_latents", counting)
    return Counter


def test_a_stopped_sampling_keeps_its_batches(jobs, inputs, tmp_path, counted, assert_same_result):
    whole = launch(jobs("sampling", tmp_path / "whole", batch_size=1))
    counted.batches, counted.stop_in = 0, tmp_path / "parts"
    with pytest.raises(Interrupted, match="parts was stopped; 2 of 5 batches are kept"):
        launch(jobs("sampling", tmp_path / "parts", batch_size=1))
    assert not (tmp_path / "parts/result").exists()
    counted.batches, counted.stop_in = 0, None
    assert_same_result(whole, launch(jobs("sampling", tmp_path / "parts", batch_size=1)))
    assert counted.batches == 3


def test_batches_of_other_settings_are_not_kept(jobs, inputs, tmp_path, counted, assert_same_result, caplog):
    whole = launch(jobs("sampling", tmp_path / "whole", batch_size=1, num_inference_steps=1))
    counted.batches, counted.stop_in = 0, tmp_path / "parts"
    with pytest.raises(Interrupted, match="parts was stopped; 2 of 5 batches are kept"):
        launch(jobs("sampling", tmp_path / "parts", batch_size=1))
    counted.batches, counted.stop_in = 0, None
    with caplog.at_level(logging.WARNING):
        result = launch(jobs("sampling", tmp_path / "parts", batch_size=1, num_inference_steps=1))
    assert "parts has other settings now; starting it afresh" in caplog.text
    assert counted.batches == 5
    assert_same_result(whole, result)


@pytest.mark.parametrize("decoding", ["whole", "sliced", "tiled"])
def test_samples_are_decoded_as_compute_says(inputs, compute, noise, decoding):
    """Slices are the same images; tiles of an image that is larger than one are blended, and nearly the same."""
    ranks = Ranks(compute.model_copy(update={"decoding": decoding}))
    plain, autoencoder = inputs.teacher.autoencoder.load(), load_decoder(inputs.teacher.autoencoder, ranks)
    seen: list[tuple[int, ...]] = []
    autoencoder.decoder.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    autoencoder.tile_latent_min_size, autoencoder.tile_sample_min_size = 4, 16
    images, expected = (decode_latents(network, noise).detach() for network in (autoencoder, plain))
    assert images.shape == expected.shape
    rows, edges = {shape[0] for shape in seen}, {shape[-1] for shape in seen}
    assert rows == ({len(noise)} if decoding == "whole" else {1})
    assert max(edges) == (4 if decoding == "tiled" else noise.shape[-1])
    if decoding != "tiled":
        torch.testing.assert_close(images, expected)
