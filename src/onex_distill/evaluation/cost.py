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
        ``method``, ``steps``, ``nfe`` (blocks counted) and ``nfe_flops`` (FLOPs counted, compensation included).
    """
    network: SD3Transformer2DModel = transformer.build()
    plan = reuse_after_first(bands, method.steps)
    module = None if compensation is None else compensation.build()
    blocks = effective_nfe(plan, len(network.transformer_blocks))
    return {
        "method": method.name,
        "steps": method.steps,
        "nfe": blocks * (1 + method.guided_steps(shift) / method.steps),
        "nfe_flops": evaluations_by_flops(network, plan, shift, embeddings, module, method),
    }


def evaluations_by_flops(
    network: SD3Transformer2DModel,
    plan: CachePlan,
    shift: float,
    embeddings: TensorTable,
    compensation: Compensation | None,
    method: MethodParams | None = None,
) -> float:
    """FLOPs of a sampling, compensation included, over those of one evaluation.

    Args:
        network: on the meta device.
        plan: steps and what is reused in each.
        shift: of the noise schedule.
        embeddings: give the shapes of a prompt.
        compensation: of a student with a cache.
        method: its guidance; none without it.

    Returns:
        The number of evaluations that the FLOPs amount to.
    """
    noise = torch.empty((1, *latent_shape(network)), device="meta")
    prompts = PromptBatch(_shape_of(embeddings, "prompt_embeds"), _shape_of(embeddings, "pooled_prompt_embeds"))
    one = flops_of(lambda: sample_latents(network, noise, step_sigmas(1, shift), prompts))
    sigmas, guidance = step_sigmas(plan.num_inference_steps, shift), None
    if method is not None and method.guidance_scale > 1:
        guidance = Guidance(method.guidance_scale, prompts, method.alpha)
    if compensation is None:
        return flops_of(lambda: sample_latents(network, noise, sigmas, prompts, guidance)) / one
    cache = BlockCache(network, plan, compensation).attach()
    whole = flops_of(lambda: sample_latents(network, noise, sigmas, prompts, guidance, cache.begin_step))
    cache.detach()
    return whole / one


def _shape_of(table: TensorTable, name: str) -> Tensor:
    """One row of a column, without its values."""
    return torch.empty_like(table.read(name, [0]), dtype=torch.float32, device="meta")
