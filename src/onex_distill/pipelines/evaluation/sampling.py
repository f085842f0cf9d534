"""Nodes that turn a method into samples and their cost."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor

from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.engine.sampling import DecodingJob, SamplingJob
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.metrics.cost import flops_of
from onex_distill.models.block_cache import BlockCache
from onex_distill.models.cache_plan import Bands, effective_nfe, reuse_after_first
from onex_distill.models.compensation import Compensation
from onex_distill.models.noise import latent_shape
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.sampling import sample_latents
from onex_distill.models.teacher import TeacherFolder
from onex_distill.pipelines.evaluation.params import EvaluationParams, MethodParams
from onex_distill.pipelines.precompute.params import TeacherSamplingParams
from onex_distill.storage.frame import store_frame
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable

Samples = tuple[TensorTable, dict[str, Any]]


def decode_teacher(
    teacher: TeacherFolder,
    latents: TensorTable,
    embeddings: TensorTable,
    sampling: TeacherSamplingParams,
    params: EvaluationParams,
    compute: ComputeParams,
    runs: Path,
) -> Samples:
    """Images of the precomputed teacher latents."""
    method = MethodParams(
        name=f"teacher_{sampling.num_inference_steps}x2",
        steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
    )
    job = DecodingJob(
        folder=runs / "decode_teacher",
        compute=compute,
        autoencoder=teacher.autoencoder,
        latents=latents.handle,
        method=method.name,
        batch_size=params.batch_size,
    )
    images = TensorTable(launch(job) / "samples")
    return images, _cost(teacher.transformer, None, embeddings, images, method, teacher)


def sample_student(
    transformer: ModelFolder,
    teacher: TeacherFolder,
    embeddings: TensorTable,
    empty: TensorTable,
    plan: pd.DataFrame,
    method: MethodParams,
    params: EvaluationParams,
    compute: ComputeParams,
    runs: Path,
    name: str,
) -> Samples:
    """Samples of a transformer that runs every block in every step."""
    return _sample(transformer, None, teacher, embeddings, empty, plan, method, params, compute, runs / name)


def sample_teacher_in_few_steps(
    teacher: TeacherFolder,
    embeddings: TensorTable,
    empty: TensorTable,
    plan: pd.DataFrame,
    method: MethodParams,
    params: EvaluationParams,
    compute: ComputeParams,
    runs: Path,
    name: str,
) -> Samples:
    """The undistilled teacher with a student's steps."""
    folder = runs / name
    return _sample(teacher.transformer, None, teacher, embeddings, empty, plan, method, params, compute, folder)


def sample_fractional(
    transformer: ModelFolder,
    compensation: ModelFolder,
    teacher: TeacherFolder,
    embeddings: TensorTable,
    empty: TensorTable,
    plan: pd.DataFrame,
    method: MethodParams,
    params: EvaluationParams,
    compute: ComputeParams,
    runs: Path,
    name: str,
) -> Samples:
    """Samples of a student that reuses the first set of bands that its compensation was trained for."""
    bands = Compensation.load_candidates(compensation.path)[0]
    return _sample(
        transformer, compensation, teacher, embeddings, empty, plan, method, params, compute, runs / name, bands
    )


def _sample(
    transformer: ModelFolder,
    compensation: ModelFolder | None,
    teacher: TeacherFolder,
    embeddings: TensorTable,
    empty: TensorTable,
    plan: pd.DataFrame,
    method: MethodParams,
    params: EvaluationParams,
    compute: ComputeParams,
    folder: Path,
    bands: Bands = (),
) -> Samples:
    job = SamplingJob(
        folder=folder,
        compute=compute,
        transformer=transformer,
        compensation=compensation,
        bands=bands,
        autoencoder=teacher.autoencoder,
        embeddings=embeddings.handle,
        empty=empty.handle,
        plan=store_frame(plan.assign(method=method.name), folder / "plan.parquet"),
        shift=teacher.shift,
        num_inference_steps=method.steps,
        guidance_scale=method.guidance_scale,
        batch_size=params.batch_size,
    )
    images = TensorTable(launch(job) / "samples")
    return images, _cost(transformer, compensation, embeddings, images, method, teacher, bands)


def _cost(
    transformer: ModelFolder,
    compensation: ModelFolder | None,
    embeddings: TensorTable,
    images: TensorTable,
    method: MethodParams,
    teacher: TeacherFolder,
    bands: Bands = (),
) -> dict[str, Any]:
    """Steps, evaluations by blocks and by FLOPs, and the median seconds an image, without text encoding.

    FLOPs are counted on the meta device, which computes nothing.
    """
    network: SD3Transformer2DModel = transformer.build()
    noise = torch.empty((1, *latent_shape(network)), device="meta")
    prompts = PromptBatch(_shape_of(embeddings, "prompt_embeds"), _shape_of(embeddings, "pooled_prompt_embeds"))
    sigmas = [step_sigmas(steps, teacher.shift) for steps in (method.steps, 1)]
    one = flops_of(lambda: sample_latents(network, noise, sigmas[1], prompts))
    plan = reuse_after_first(bands, method.steps)
    cache = None if compensation is None else BlockCache(network, plan, compensation.build()).attach()
    before_step = None if cache is None else cache.begin_step
    total = flops_of(
        lambda: sample_latents(network, noise, sigmas[0], prompts, prompts, method.guidance_scale, before_step)
    )
    blocks = effective_nfe(plan, len(network.transformer_blocks))
    return {
        "method": method.name,
        "steps": method.steps,
        "nfe": blocks * (2 if method.guidance_scale > 1 else 1),
        "nfe_flops": total / one,
        "seconds_per_image": float(images.column("seconds").median()),
    }


def _shape_of(table: TensorTable, name: str) -> Tensor:
    """One row of a column, without its values."""
    return torch.empty_like(table.read(name, [0]), dtype=torch.float32, device="meta")
