"""Euler sampling of latents, with or without guidance, and decoding to images.

Shapes: B batch; latents (B, C, H, W); images RGB in [0, 1], (B, 3, H*f, W*f).
"""

from collections.abc import Callable

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor

from onex_distill.flow.conversions import euler_step
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.velocity import predict_guided_velocity, predict_velocity

BeforeStep = Callable[[int], None]


@torch.no_grad()
def sample_latents(
    transformer: SD3Transformer2DModel,
    noise: Tensor,
    sigmas: Tensor,
    prompts: PromptBatch,
    empty: PromptBatch | None = None,
    guidance_scale: float = 1.0,
    before_step: BeforeStep | None = None,
) -> Tensor:
    """Follow the flow from noise (sigma 1) through ``sigmas`` (K + 1,) down to x0, (B, C, H, W).

    With ``guidance_scale`` above 1 every step is guided and needs ``empty``; ``before_step`` is told each step's index.
    """
    x_t = noise
    for step, (sigma, sigma_next) in enumerate(zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True)):
        if before_step is not None:
            before_step(step)
        if guidance_scale > 1:
            if empty is None:
                raise ValueError(f"guidance_scale {guidance_scale} needs the empty prompt's embeddings")
            guided = torch.ones(len(x_t), dtype=torch.bool)
            velocity = predict_guided_velocity(transformer, x_t, sigma, prompts, empty, guidance_scale, guided)
        else:
            velocity = predict_velocity(transformer, x_t, sigma, prompts)
        x_t = euler_step(x_t, velocity, sigma, sigma_next)
    return x_t


def decode_latents(autoencoder: AutoencoderKL, latents: Tensor) -> Tensor:
    """Scaled latents to images in [0, 1], clamped; gradients flow to the latents."""
    unscaled = latents / autoencoder.config.scaling_factor + autoencoder.config.shift_factor
    images: Tensor = autoencoder.decode(unscaled, return_dict=False)[0]
    return (images / 2 + 0.5).clamp(0, 1)
