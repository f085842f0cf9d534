"""One evaluation of the velocity network, plain or guided, and what its output layer sees.

Shapes: B batch, N image tokens, D width; x_t and velocity (B, C, H, W); sigma is a float or (B,).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from onex_distill.flow.conversions import Sigma
from onex_distill.flow.guidance import guided_velocity
from onex_distill.models.prompts import PromptBatch, concatenate

Network = Callable[..., Any]  # a Stable Diffusion 3 transformer, or what takes and gives the same


def predict_velocity(transformer: Network, x_t: Tensor, sigma: Sigma, prompts: PromptBatch) -> Tensor:
    """The network's velocity at (x_t, sigma).

    The timestep 1000 * sigma reaches the network in float32 whatever its weights are: bf16 would move it by up to 2.

    Args:
        transformer: The network.
        x_t: Latents, (B, C, H, W).
        sigma: Their levels, one number or (B,).
        prompts: The captions' embeddings, B rows.

    Returns:
        The velocity, in shape and type like ``x_t``.
    """
    timestep = 1000 * torch.as_tensor(sigma, dtype=torch.float32, device=x_t.device).expand(len(x_t))
    velocity: Tensor = transformer(
        hidden_states=x_t,
        timestep=timestep,
        encoder_hidden_states=prompts.embeds,
        pooled_projections=prompts.pooled,
        return_dict=False,
    )[0]
    return velocity.to(x_t.dtype)  # autocast gives half precision


def predict_guided_velocity(
    transformer: Network,
    x_t: Tensor,
    sigma: Sigma,
    prompts: PromptBatch,
    empty: PromptBatch,
    guidance_scale: float,
    guided: Tensor,
) -> Tensor:
    """Guided velocity on some rows, conditional on the others, in one forward.

    Only guided rows cost an unconditional evaluation; the extra rows ride in the same call, so that every rank calls
    the network the same number of times.

    Args:
        transformer: The network.
        x_t: Latents, (B, C, H, W).
        sigma: Their levels, one number or (B,).
        prompts: The captions' embeddings, B rows.
        empty: The empty prompt's embeddings, one row.
        guidance_scale: The scale on guided rows.
        guided: Which rows those are, bool (B,), on the CPU.

    Returns:
        The velocity, in shape and type like ``x_t``.
    """
    rows = guided.nonzero()[:, 0].to(x_t.device)
    levels = torch.as_tensor(sigma, dtype=torch.float32, device=x_t.device).expand(len(x_t))
    both = predict_velocity(
        transformer,
        torch.cat([x_t, x_t[rows]]),
        torch.cat([levels, levels[rows]]),
        concatenate(prompts, empty.expand(len(rows))),
    )
    conditional, unconditional = both[: len(x_t)], both[len(x_t) :]
    velocity = conditional.clone()
    velocity[rows] = guided_velocity(conditional[rows], unconditional, guidance_scale)
    return velocity


@contextmanager
def last_features(transformer: SD3Transformer2DModel) -> Iterator[list[Tensor]]:
    """The image tokens (B, N, D) that the last forward inside the block gave to the output layer, alone in a list."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, args: tuple[Tensor, Tensor]) -> None:
        kept[:] = args[:1]

    handle = transformer.norm_out.register_forward_pre_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()
