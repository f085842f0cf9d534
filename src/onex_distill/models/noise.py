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


def noise_from_seeds(seeds: Iterable[int], transformer: SD3Transformer2DModel) -> Tensor:
    """Standard normal noise in the transformer's latent shape, one seed a row."""
    shape = latent_shape(transformer)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds])
