"""A pixel-space discriminator: light trainable heads on the frozen features of a recogniser.

Shapes: B batch; images RGB in [0, 1], (B, 3, H, W); logits (B, M_i), one tensor a level.
"""

from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class FeatureNetwork(Protocol):
    """What a discriminator needs from its frozen backbone."""

    def levels(self, images: Tensor) -> list[Tensor]:
        """Feature maps (B, C_i, H_i, W_i)."""

    def features(self, images: Tensor) -> Tensor:
        """Pooled features (B, D)."""


class BlurPool(nn.Module):
    """Binomial blur and stride 2, so that a head does not see aliases of the features (Zhang, 2019)."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0])
        kernel = torch.outer(taps, taps) / 16
        self.register_buffer("kernel", kernel.expand(channels, 1, 3, 3).contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H/2, W/2)."""
        padded = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
        return nn.functional.conv2d(padded, self.kernel, stride=2, groups=x.shape[1])


class Discriminator(nn.Module):
    """One convolutional head a feature level and one linear head on the pooled feature."""

    def __init__(self, backbone: nn.Module, hidden: int) -> None:
        super().__init__()
        frozen = cast(FeatureNetwork, backbone.requires_grad_(False).eval())
        self.backbone = [frozen]  # in a list, so that it is no part of this module's state
        with torch.no_grad():
            probe = torch.zeros(1, 3, 32, 32)
            maps, pooled = frozen.levels(probe), frozen.features(probe)
        self.heads = nn.ModuleList(_head(level.shape[1], hidden) for level in maps)
        self.pooled_head = nn.Sequential(
            spectral_norm(nn.Linear(pooled.shape[1], hidden)), nn.LeakyReLU(0.2), spectral_norm(nn.Linear(hidden, 1))
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits of every level, high for images that look real."""
        maps = self.backbone[0].levels(images)
        logits = [head(level).flatten(1) for head, level in zip(self.heads, maps, strict=True)]
        return [*logits, self.pooled_head(self.backbone[0].features(images))]


def _head(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        spectral_norm(nn.Conv2d(channels, hidden, 3, padding=1)),
        nn.LeakyReLU(0.2),
        BlurPool(hidden),
        spectral_norm(nn.Conv2d(hidden, 1, 1)),
    )
