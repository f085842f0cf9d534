"""Euler sampling of latents, with or without guidance, and decoding to images.

Shapes: B batch; latents (B, C, H, W); images RGB, nominally in [0, 1], (B, 3, H*f, W*f).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor

from onex_distill.flow.conversions import euler_step
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.velocity import predict_guided_velocity, predict_velocity

BeforeStep = Callable[[int], None]
Precision = Literal["fp32", "bf16"]  # of a decoder's weights and arithmetic
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance against ``empty`` at every step that starts from a sigma of at most ``alpha``.

    alpha = 1 guides every step; a smaller one gives what the paper's timestep-aware guidance distils (eq. 4).
    """

    scale: float
    empty: PromptBatch
    alpha: float = 1.0


@torch.no_grad()
def sample_latents(
    transformer: SD3Transformer2DModel,
    noise: Tensor,
    sigmas: Tensor,
    prompts: PromptBatch,
    guidance: Guidance | None = None,
    before_step: BeforeStep | None = None,
) -> Tensor:
    """Follow the flow from noise down to x0.

    Args:
        transformer: The network that samples.
        noise: Where sampling starts (sigma 1), (B, C, H, W).
        sigmas: The levels of the steps, (K + 1,).
        prompts: The captions' embeddings, B rows.
        guidance: How steps are guided; without it every step takes the conditional prediction.
        before_step: Is told each step's index.

    Returns:
        The latents at the last level, (B, C, H, W).
    """
    x_t = noise
    for step, (sigma, sigma_next) in enumerate(zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True)):
        if before_step is not None:
            before_step(step)
        if guidance is not None and sigma <= guidance.alpha:
            rows = torch.ones(len(x_t), dtype=torch.bool)
            scale, empty = guidance.scale, guidance.empty
            velocity = predict_guided_velocity(transformer, x_t, sigma, prompts, empty, scale, rows)
        else:
            velocity = predict_velocity(transformer, x_t, sigma, prompts)
        x_t = euler_step(x_t, velocity, sigma, sigma_next)
    return x_t


def decode_latents(autoencoder: AutoencoderKL, latents: Tensor) -> Tensor:
    """Scaled latents to images, nominally in [0, 1] and not clamped; gradients flow to the latents.

    The autoencoder computes in the precision of its weights; images come in that of the latents.
    """
    unscaled = latents / autoencoder.config.scaling_factor + autoencoder.config.shift_factor
    images: Tensor = autoencoder.decode(unscaled.to(autoencoder.dtype), return_dict=False)[0]
    return images.to(latents.dtype) / 2 + 0.5
