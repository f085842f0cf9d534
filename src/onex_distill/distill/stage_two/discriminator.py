"""A pixel-space discriminator: light trainable heads on the frozen features of an image network.

Shapes: B batch; images RGB, nominally in [0, 1], (B, 3, H, W); logits (B, M_i), a tensor per level.
"""

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized


class FeatureNetwork(Protocol):
    """What a discriminator needs from its frozen backbone, a module: ``ShapesReader`` and ``TimmBackbone`` have it.

    Resizing and normalising the images is the backbone's own business.
    """

    level_channels: Sequence[int]
    feature_width: int

    def levels_and_features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Feature maps (B, C_i, H_i, W_i) and pooled features (B, D) of one pass."""


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
    """A convolutional head per feature level and a linear head on the pooled feature.

    Forwards leave the spectral norms' estimates as they are: ``refine_norms`` improves them once per update, so that it
    makes no difference in how many parts an update is computed.
    """

    def __init__(self, backbone: FeatureNetwork, hidden: int) -> None:
        """``backbone`` is frozen already; it is no part of this module's state."""
        super().__init__()
        self.backbone = [backbone]  # in a list, so that it is not registered
        self.heads = nn.ModuleList(_head(channels, hidden) for channels in backbone.level_channels)
        self.pooled_head = nn.Sequential(
            spectral_norm(nn.Linear(backbone.feature_width, hidden)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Linear(hidden, 1)),
        )
        self.eval()

    def refine_norms(self) -> None:
        """One power iteration for the norm of every layer."""
        for layer in self.modules():
            if is_parametrized(layer):
                layer.train()
                with torch.no_grad():
                    _ = layer.weight
                layer.eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits of every level, high for images that look real."""
        maps, pooled = self.backbone[0].levels_and_features(images)
        logits = [head(level).flatten(1) for head, level in zip(self.heads, maps, strict=True)]
        return [*logits, self.pooled_head(pooled)]


def frozen(backbone: nn.Module) -> FeatureNetwork:
    """The backbone without gradients of its own, in evaluation mode."""
    return cast(FeatureNetwork, backbone.requires_grad_(False).eval())


def _head(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        spectral_norm(nn.Conv2d(channels, hidden, 3, padding=1)),
        nn.LeakyReLU(0.2),
        BlurPool(hidden),
        spectral_norm(nn.Conv2d(hidden, 1, 1)),
    )
