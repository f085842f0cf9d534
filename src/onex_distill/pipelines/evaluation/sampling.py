"""Nodes that turn a method into samples and their cost."""

import time
from typing import Any

import pandas as pd
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline

from onex_distill.flow.sigmas import step_sigmas
from onex_distill.metrics.cost import flops_of
from onex_distill.models.block_cache import BlockCache
from onex_distill.models.cache_plan import effective_nfe, reuse_after_first
from onex_distill.models.compensation import Compensation
from onex_distill.models.noise import noise_from_seeds
from onex_distill.models.prompts import read_prompts
from onex_distill.models.sampling import BeforeStep, decode_latents, sample_latents, sample_rows
from onex_distill.pipelines.evaluation.params import EvaluationParams, MethodParams
from onex_distill.pipelines.precompute.params import TeacherSamplingParams
from onex_distill.storage.tensor_table import TensorTable

Samples = tuple[TensorTable, dict[str, Any]]


def decode_teacher(
    teacher: StableDiffusion3Pipeline,
    latents: TensorTable,
    embeddings: TensorTable,
    empty: TensorTable,
    sampling: TeacherSamplingParams,
    params: EvaluationParams,
) -> Samples:
    """Images of the precomputed teacher latents."""
    method = MethodParams(
        name=f"teacher_{sampling.num_inference_steps}x2",
        steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
    )
    images = _decode(teacher.vae, latents, method, params)
    return images, _cost(teacher.transformer, teacher, embeddings, empty, latents.index, images, method, None)


def sample_student(
    transformer: SD3Transformer2DModel,
    teacher: StableDiffusion3Pipeline,
    embeddings: TensorTable,
    empty: TensorTable,
    plan: pd.DataFrame,
    method: MethodParams,
    params: EvaluationParams,
) -> Samples:
    """Samples of a transformer that runs every block in every step."""
    return _sample(transformer, teacher, embeddings, empty, plan, method, params, None)


def sample_teacher_in_few_steps(
    teacher: StableDiffusion3Pipeline,
    embeddings: TensorTable,
    empty: TensorTable,
    plan: pd.DataFrame,
    method: MethodParams,
    params: EvaluationParams,
) -> Samples:
    """The undistilled teacher with a student's steps."""
    return sample_student(teacher.transformer, teacher, embeddings, empty, plan, method, params)


def sample_fractional(
    transformer: SD3Transformer2DModel,
    compensation: Compensation,
    teacher: StableDiffusion3Pipeline,
    embeddings: TensorTable,
    empty: TensorTable,
    plan: pd.DataFrame,
    method: MethodParams,
    params: EvaluationParams,
) -> Samples:
    """Samples of a student that reuses the first set of bands that its compensation was trained for."""
    cache_plan = reuse_after_first(compensation.candidates[0], method.steps)
    cache = BlockCache(transformer, cache_plan, compensation).attach()
    try:
        return _sample(transformer, teacher, embeddings, empty, plan, method, params, cache)
    finally:
        cache.detach()


def _sample(
    transformer: SD3Transformer2DModel,
    teacher: StableDiffusion3Pipeline,
    embeddings: TensorTable,
    empty: TensorTable,
    plan: pd.DataFrame,
    method: MethodParams,
    params: EvaluationParams,
    cache: BlockCache | None,
) -> Samples:
    latents = sample_rows(
        transformer,
        embeddings,
        plan,
        teacher.scheduler.config.shift,
        method.steps,
        params.batch_size,
        read_prompts(empty, [0]),
        method.guidance_scale,
        _before_step(cache),
    )
    images = _decode(teacher.vae, latents, method, params)
    return images, _cost(transformer, teacher, embeddings, empty, plan, images, method, cache)


def _before_step(cache: BlockCache | None) -> BeforeStep | None:
    return None if cache is None else cache.begin_step


@torch.no_grad()
def _decode(
    autoencoder: AutoencoderKL, latents: TensorTable, method: MethodParams, params: EvaluationParams
) -> TensorTable:
    """Latents to uint8 images; the index names the method, and ``seconds`` an image now includes decoding."""
    began = time.perf_counter()
    batches = [decode_latents(autoencoder, latents.read("latent", rows)) for rows in latents.batches(params.batch_size)]
    seconds = latents.index["seconds"] + (time.perf_counter() - began) / len(latents)
    pixels = (torch.cat(batches) * 255).round().to(torch.uint8)
    return TensorTable(latents.index.assign(method=method.name, seconds=seconds), {"image": pixels})


def _cost(
    transformer: SD3Transformer2DModel,
    teacher: StableDiffusion3Pipeline,
    embeddings: TensorTable,
    empty: TensorTable,
    plan: pd.DataFrame,
    images: TensorTable,
    method: MethodParams,
    cache: BlockCache | None,
) -> dict[str, Any]:
    """Steps, evaluations by blocks and by FLOPs, and the median seconds an image, without text encoding."""
    shift = teacher.scheduler.config.shift
    noise = noise_from_seeds(plan["noise_seed"].iloc[:1], transformer)
    prompts = read_prompts(embeddings, plan["prompt_row"].iloc[:1].to_numpy())
    sigmas = step_sigmas(method.steps, shift)
    blank = read_prompts(empty, [0])
    total = flops_of(
        lambda: sample_latents(transformer, noise, sigmas, prompts, blank, method.guidance_scale, _before_step(cache))
    )
    one = flops_of(lambda: sample_latents(teacher.transformer, noise, step_sigmas(1, shift), prompts))
    cache_plan = reuse_after_first((), method.steps) if cache is None else cache.plan
    blocks = effective_nfe(cache_plan, len(transformer.transformer_blocks))
    return {
        "method": method.name,
        "steps": method.steps,
        "nfe": blocks * (2 if method.guidance_scale > 1 else 1),
        "nfe_flops": total / one,
        "seconds_per_image": float(images.index["seconds"].median()),
    }
