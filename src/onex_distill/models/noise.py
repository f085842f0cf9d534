"""Initial noise as a function of a stored seed, the same for every method that is compared.

Shapes: B batch; noise (B, C, H, W).
"""

from collections.abc import Iterable

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor


def latent_shape(transformer: SD3Transformer2DModel) -> tuple[int, int, int]:
    """(C, H, W) of the latents that a transformer was made for."""
    config = transformer.config
    return config.in_channels, config.sample_size, config.sample_size


def noise_from_seeds(seeds: Iterable[int], shape: tuple[int, int, int]) -> Tensor:
    """Standard normal noise of shape (C, H, W), one seed per row."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds])
