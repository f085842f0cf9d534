"""Sampling and decoding over ranks, in whole shards (engine.tables)."""

import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from onex_distill.cache.block_cache import BlockCache
from onex_distill.cache.plan import Bands, reuse_after_first
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.job import Job
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.run import Run
from onex_distill.engine.speed import compile_blocks
from onex_distill.engine.tables import write_table
from onex_distill.evaluation.params import MethodParams
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.conditions import Conditions
from onex_distill.models.noise import latent_shape, noise_from_seeds
from onex_distill.models.prompts import read_prompts
from onex_distill.models.sampling import Guidance, decode_latents, sample_latents
from onex_distill.storage.frame import FrameFile, store_frame
from onex_distill.storage.image_table import ImageWriter
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TableFolder, TableWriter


class SamplingJob(Job):
    """Latents of every row of a plan (``prompt_row``, ``noise_seed``), or with an autoencoder their images as files.

    With a compensation, ``bands`` are reused after the first step. A guidance scale above 1 guides the steps that start
    from a sigma of at most ``alpha``. ``seconds`` is a column too: the time per image.
    """

    transformer: ModelFolder
    compensation: ModelFolder | None
    bands: Bands
    autoencoder: ModelFolder | None
    embeddings: TableFolder
    empty: TableFolder
    plan: FrameFile
    shift: float
    num_inference_steps: PositiveInt
    guidance_scale: NonNegativeFloat
    alpha: float = Field(ge=0, le=1)
    batch_size: PositiveInt

    def run(self, run: Run) -> None:
        """Write the table ``samples``."""
        device = run.ranks.device
        transformer: SD3Transformer2DModel = self.transformer.load().to(device).eval()
        if self.compute.compile == "blocks":
            compile_blocks(transformer)
        autoencoder = self.autoencoder and load_decoder(self.autoencoder, run.ranks)
        cache = None
        if self.compensation is not None:
            compensation = self.compensation.load().to(device).eval()
            cached = reuse_after_first(self.bands, self.num_inference_steps)
            cache = BlockCache(transformer, cached, compensation).attach()
        plan, embeddings = self.plan.read(), self.embeddings.open()
        sigmas = step_sigmas(self.num_inference_steps, self.shift)
        guidance = None
        if self.guidance_scale > 1:
            guidance = Guidance(self.guidance_scale, read_prompts(self.empty.open(), [0], device), self.alpha)

        def sample(rows: range) -> Mapping[str, Tensor]:
            chosen = plan.iloc[rows.start : rows.stop]
            noise = noise_from_seeds(chosen["noise_seed"], latent_shape(transformer)).to(device)
            prompts = read_prompts(embeddings, chosen["prompt_row"].to_numpy(), device)
            began = time.perf_counter()
            with run.ranks.autocast():
                latents = sample_latents(
                    transformer,
                    noise,
                    sigmas,
                    prompts,
                    guidance,
                    None if cache is None else cache.begin_step,
                )
            columns = {"latent": latents} if autoencoder is None else {"image": _pixels(autoencoder, latents)}
            seconds = (time.perf_counter() - began) / len(rows)
            return {**columns, "seconds": torch.full((len(rows),), seconds)}

        kind = TableWriter if autoencoder is None else ImageWriter
        write_table(run, "samples", plan, self.batch_size, sample, kind)


def latents_job(
    conditions: Conditions,
    transformer: ModelFolder,
    plan: pd.DataFrame,
    method: MethodParams,
    batch_size: int,
    compute: ComputeParams,
    folder: Path,
) -> SamplingJob:
    """The job that samples a transformer's latents, without a cache.

    Args:
        conditions: the teacher, whose schedule is followed, and the captions' embeddings.
        transformer: the velocity network.
        plan: ``prompt_row`` and ``noise_seed`` of every row; it is stored in the folder.
        method: steps and guidance.
        batch_size: rows that are sampled together.
        compute: where it runs.
        folder: of the run.

    Returns:
        The job, for ``launch``.
    """
    return SamplingJob(
        folder=folder,
        compute=compute,
        transformer=transformer,
        compensation=None,
        bands=(),
        autoencoder=None,
        embeddings=conditions.embeddings,
        empty=conditions.empty,
        plan=store_frame(plan, folder / "plan.parquet"),
        shift=conditions.teacher.shift,
        num_inference_steps=method.steps,
        guidance_scale=method.guidance_scale,
        alpha=method.alpha,
        batch_size=batch_size,
    )


class DecodingJob(Job):
    """Images of latents that are there already; ``seconds`` gains the time of decoding, the index a ``method``.

    As ``files`` for the evaluation, as tensors for a training that reads them again and again.
    """

    autoencoder: ModelFolder
    latents: TableFolder
    method: str
    batch_size: PositiveInt
    files: bool

    def run(self, run: Run) -> None:
        """Write the table ``samples``."""
        autoencoder = load_decoder(self.autoencoder, run.ranks)
        latents = self.latents.open()

        def decode(rows: range) -> Mapping[str, Tensor]:
            began = time.perf_counter()
            images = _pixels(autoencoder, latents.read("latent", rows).to(run.ranks.device))
            seconds = (time.perf_counter() - began) / len(rows)
            return {"image": images, "seconds": latents.read("seconds", rows) + seconds}

        kind = ImageWriter if self.files else TableWriter
        write_table(run, "samples", latents.index.assign(method=self.method), self.batch_size, decode, kind)


def load_decoder(folder: ModelFolder, ranks: Ranks) -> AutoencoderKL:
    """The autoencoder, on the rank's device, decoding as ``compute.decoding`` says."""
    autoencoder: AutoencoderKL = folder.load().to(ranks.device).eval()
    if ranks.compute.decoding != "whole":
        autoencoder.enable_slicing()
    if ranks.compute.decoding == "tiled":
        autoencoder.enable_tiling()
    return autoencoder


def _pixels(autoencoder: AutoencoderKL, latents: Tensor) -> Tensor:
    """Latents to uint8 images, (B, 3, H, W)."""
    return (decode_latents(autoencoder, latents).clamp(0, 1) * 255).round().to(torch.uint8)
