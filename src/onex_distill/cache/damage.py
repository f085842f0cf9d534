"""The damage of a set of bands: how far plain caching of them moves the latents that a sampling ends with.

|cached - whole| / |whole|, norms over a sample's latents: the reuse errors of the bands after all blocks and steps that
still run, which repair part of them. The change of a band's residual alone cannot know that.

Shapes: B batch, S sets of bands, K steps; latents (B, C, H, W).
"""

from collections.abc import Sequence

import pandas as pd
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor

from onex_distill.cache.block_cache import BlockCache
from onex_distill.cache.compensation import Compensation
from onex_distill.cache.fitting import band_residual, edges, entering_streams
from onex_distill.cache.plan import Bands, reuse_after_first
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.noise import latent_shape, noise_from_seeds
from onex_distill.models.prompts import PromptBatch, read_prompts
from onex_distill.models.sampling import sample_latents
from onex_distill.storage.tensor_table import TensorTable


@torch.no_grad()
def sampled_damage(
    transformer: SD3Transformer2DModel, noise: Tensor, sigmas: Tensor, prompts: PromptBatch, sets: Sequence[Bands]
) -> Tensor:
    """The damage of every set to every sample; the first step, which all sets share, is sampled once.

    Args:
        transformer: The network that samples.
        noise: Where sampling starts, (B, C, H, W).
        sigmas: The levels of the steps, (K + 1,).
        prompts: The captions' embeddings, B rows.
        sets: Sets of bands, each reused together after the first step.

    Returns:
        The damages, (S, B).

    Raises:
        ValueError: A band cannot be skipped.
    """
    steps = len(sigmas) - 1
    plain = Compensation(transformer.inner_dim, sets, "identity").to(transformer.device)
    cache = BlockCache(transformer, reuse_after_first((), steps), plain)
    with entering_streams(transformer, edges(plain.bands)) as forwards:
        begun = sample_latents(transformer, noise, sigmas[:2], prompts)
    whole = sample_latents(transformer, begun, sigmas[1:], prompts).flatten(1)
    damages = []
    cache.attach()
    try:
        for bands in sets:
            cache.use(reuse_after_first(bands, steps))
            cache.resume([band_residual(forwards[0], band) for band in bands])
            cached = sample_latents(
                transformer, begun, sigmas[1:], prompts, before_step=lambda step: cache.begin_step(step + 1)
            )
            damages.append((cached.flatten(1) - whole).norm(dim=1) / whole.norm(dim=1))
    finally:
        cache.detach()
    return torch.stack(damages)


def mean_damage(
    transformer: SD3Transformer2DModel,
    embeddings: TensorTable,
    plan: pd.DataFrame,
    shift: float,
    num_inference_steps: int,
    sets: Sequence[Bands],
    batch_size: int,
) -> pd.DataFrame:
    """Sets of bands with their damage averaged over the rows of a plan, least first.

    Args:
        transformer: The network that samples, without guidance.
        embeddings: The captions' embeddings.
        plan: What is sampled: ``prompt_row`` and ``noise_seed``.
        shift: The shift of the levels.
        num_inference_steps: Steps of a sampling.
        sets: Sets of bands, each reused together after the first step.
        batch_size: Samples at once.

    Returns:
        Columns ``bands`` and ``predicted``.

    Raises:
        ValueError: A band cannot be skipped.
    """
    sigmas = step_sigmas(num_inference_steps, shift)
    parts = []
    for start in range(0, len(plan), batch_size):
        rows = plan.iloc[start : start + batch_size]
        noise = noise_from_seeds(rows["noise_seed"], latent_shape(transformer)).to(transformer.device)
        prompts = read_prompts(embeddings, rows["prompt_row"].to_numpy(), transformer.device)
        parts.append(sampled_damage(transformer, noise, sigmas, prompts, sets))
    table = pd.DataFrame({"bands": list(sets), "predicted": torch.cat(parts, dim=1).mean(dim=1).tolist()})
    return table.sort_values("predicted", kind="stable", ignore_index=True)
