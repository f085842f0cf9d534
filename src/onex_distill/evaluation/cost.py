"""What a method costs per image: evaluations by blocks and by FLOPs, and seconds."""

from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor

from onex_distill.cache.block_cache import BlockCache
from onex_distill.cache.compensation import Compensation
from onex_distill.cache.plan import Bands, CachePlan, effective_nfe, reuse_after_first
from onex_distill.evaluation.params import MethodParams
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.metrics.cost import flops_of
from onex_distill.models.noise import latent_shape
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.sampling import Guidance, sample_latents
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable


def cost_of(
    transformer: ModelFolder,
    method: MethodParams,
    shift: float,
    embeddings: TensorTable,
    compensation: ModelFolder | None = None,
    bands: Bands = (),
) -> dict[str, Any]:
    """Steps and evaluations of a method, without text encoding.

    Args:
        transformer: the velocity network, built on the meta device, where counting FLOPs computes nothing.
        method: its steps, guidance scale and the highest sigma that is guided.
        shift: of the noise schedule.
        embeddings: give the shapes of a prompt.
        compensation: of a student with a cache.
        bands: what the cache reuses after the first step.

    Returns:
        ``method``, ``steps``, ``nfe`` (blocks counted), ``nfe_flops`` (FLOPs counted, compensation included) and
        ``gflops_per_image`` (of the same FLOPs; decoding is not among them).
    """
    network: SD3Transformer2DModel = transformer.build()
    plan = reuse_after_first(bands, method.steps)
    module = None if compensation is None else compensation.build()
    blocks = effective_nfe(plan, len(network.transformer_blocks))
    flops = sampling_flops(network, plan, shift, embeddings, module, method)
    return {
        "method": method.name,
        "steps": method.steps,
        "nfe": blocks * (1 + method.guided_steps(shift) / method.steps),
        "nfe_flops": flops / evaluation_flops(network, shift, embeddings),
        "gflops_per_image": flops / 1e9,
    }


def evaluation_flops(network: SD3Transformer2DModel, shift: float, embeddings: TensorTable) -> int:
    """FLOPs of one evaluation of a network on the meta device for one image."""
    noise, prompts = _shapes(network, embeddings)
    return flops_of(lambda: sample_latents(network, noise, step_sigmas(1, shift), prompts))


def sampling_flops(
    network: SD3Transformer2DModel,
    plan: CachePlan,
    shift: float,
    embeddings: TensorTable,
    compensation: Compensation | None,
    method: MethodParams | None = None,
) -> int:
    """FLOPs of a sampling of one image, compensation included.

    Args:
        network: on the meta device.
        plan: steps and what is reused in each.
        shift: of the noise schedule.
        embeddings: give the shapes of a prompt.
        compensation: of a student with a cache.
        method: its guidance; none without it.

    Returns:
        The number of FLOPs.
    """
    noise, prompts = _shapes(network, embeddings)
    sigmas, guidance = step_sigmas(plan.num_inference_steps, shift), None
    if method is not None and method.guidance_scale > 1:
        guidance = Guidance(method.guidance_scale, prompts, method.alpha)
    if compensation is None:
        return flops_of(lambda: sample_latents(network, noise, sigmas, prompts, guidance))
    cache = BlockCache(network, plan, compensation).attach()
    whole = flops_of(lambda: sample_latents(network, noise, sigmas, prompts, guidance, cache.begin_step))
    cache.detach()
    return whole


def _shapes(network: SD3Transformer2DModel, embeddings: TensorTable) -> tuple[Tensor, PromptBatch]:
    """One image's noise and prompt, without their values."""
    noise = torch.empty((1, *latent_shape(network)), device="meta")
    return noise, PromptBatch(_shape_of(embeddings, "prompt_embeds"), _shape_of(embeddings, "pooled_prompt_embeds"))


def _shape_of(table: TensorTable, name: str) -> Tensor:
    """One row of a column, without its values."""
    return torch.empty_like(table.read(name, [0]), dtype=torch.float32, device="meta")
