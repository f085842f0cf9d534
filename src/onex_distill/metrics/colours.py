"""Saturation and contrast of images, of which users of distilled models complain first.

Shapes: N images, H W their size; images are uint8 (N, 3, H, W).
"""

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""


def saturation(images: Tensor) -> Tensor:
    """Mean over pixels of (max - min) / max over channels, HSV's saturation, float64 (N,) in [0, 1]; black has none."""
    pixels = images.double()
    most, least = pixels.amax(1), pixels.amin(1)
    return ((most - least) / most.clamp_min(1)).mean((1, 2))


def contrast(images: Tensor) -> Tensor:
    """Root mean square contrast: the standard deviation of brightness in [0, 1] over pixels, float64 (N,)."""
    brightness = (images.double() / 255 * torch.tensor(LUMA, dtype=torch.float64).view(1, 3, 1, 1)).sum(1)
    return brightness.flatten(1).std(1, unbiased=False)
