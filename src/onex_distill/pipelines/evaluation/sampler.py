"""Samples of any method under the same conditions, and what they cost."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor

from onex_distill.cache.block_cache import BlockCache
from onex_distill.cache.compensation import Compensation
from onex_distill.cache.plan import Bands, CachePlan, effective_nfe, reuse_after_first
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.evaluation.sampling_jobs import SamplingJob
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.metrics.cost import flops_of
from onex_distill.models.noise import latent_shape
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.sampling import sample_latents
from onex_distill.models.teacher import TeacherFolder
from onex_distill.pipelines.evaluation.params import EvaluationParams, MethodParams
from onex_distill.storage.frame import store_frame
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable

Samples = tuple[TensorTable, dict[str, Any]]


@dataclass(frozen=True)
class Sampler:
    """What all methods share: captions, noise, autoencoder, schedule and where they run."""

    teacher: TeacherFolder
    embeddings: TensorTable
    empty: TensorTable
    plan: pd.DataFrame
    params: EvaluationParams
    compute: ComputeParams

    def sample(
        self,
        transformer: ModelFolder,
        method: MethodParams,
        folder: Path,
        compensation: ModelFolder | None = None,
        bands: Bands = (),
    ) -> Samples:
        """Images of a transformer that reuses ``bands`` after the first step, and their cost."""
        job = SamplingJob(
            folder=folder,
            compute=self.compute,
            transformer=transformer,
            compensation=compensation,
            bands=bands,
            autoencoder=self.teacher.autoencoder,
            embeddings=self.embeddings.handle,
            empty=self.empty.handle,
            plan=store_frame(self.plan.assign(method=method.name), folder / "plan.parquet"),
            shift=self.teacher.shift,
            num_inference_steps=method.steps,
            guidance_scale=method.guidance_scale,
            batch_size=self.params.batch_size,
        )
        images = TensorTable(launch(job) / "samples")
        shift = self.teacher.shift
        return images, cost_of(transformer, method, shift, self.embeddings, images, compensation, bands)


def cost_of(
    transformer: ModelFolder,
    method: MethodParams,
    shift: float,
    embeddings: TensorTable,
    images: TensorTable,
    compensation: ModelFolder | None = None,
    bands: Bands = (),
) -> dict[str, Any]:
    """Steps, evaluations by blocks and by FLOPs, and the median seconds an image, without text encoding.

    FLOPs are counted on the meta device, which computes nothing.
    """
    network: SD3Transformer2DModel = transformer.build()
    plan, scale = reuse_after_first(bands, method.steps), method.guidance_scale
    module = None if compensation is None else compensation.build()
    blocks = effective_nfe(plan, len(network.transformer_blocks))
    return {
        "method": method.name,
        "steps": method.steps,
        "nfe": blocks * (2 if scale > 1 else 1),
        "nfe_flops": evaluations_by_flops(network, plan, shift, embeddings, module, scale),
        "seconds_per_image": float(images.column("seconds").median()),
    }


def evaluations_by_flops(
    network: SD3Transformer2DModel,
    plan: CachePlan,
    shift: float,
    embeddings: TensorTable,
    compensation: Compensation | None,
    guidance_scale: float = 1.0,
) -> float:
    """FLOPs of a sampling, compensation included, over those of one evaluation; the network is on the meta device."""
    noise = torch.empty((1, *latent_shape(network)), device="meta")
    prompts = PromptBatch(_shape_of(embeddings, "prompt_embeds"), _shape_of(embeddings, "pooled_prompt_embeds"))
    sigmas = step_sigmas(plan.num_inference_steps, shift)
    one = flops_of(lambda: sample_latents(network, noise, step_sigmas(1, shift), prompts))
    if compensation is None:
        return flops_of(lambda: sample_latents(network, noise, sigmas, prompts, prompts, guidance_scale)) / one
    cache = BlockCache(network, plan, compensation).attach()
    whole = flops_of(lambda: sample_latents(network, noise, sigmas, prompts, prompts, guidance_scale, cache.begin_step))
    cache.detach()
    return whole / one


def _shape_of(table: TensorTable, name: str) -> Tensor:
    """One row of a column, without its values."""
    return torch.empty_like(table.read(name, [0]), dtype=torch.float32, device="meta")
