"""Grids of images for reports.

Shapes: images RGB in [0, 1], (N, 3, H, W).
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

MINIMUM_SIZE = 96


def image_grid(rows: Sequence[Tensor]) -> Image.Image:
    """One row of images per entry, small images enlarged without smoothing."""
    count = min(len(row) for row in rows)
    images = torch.cat([row[:count] for row in rows])
    factor = max(1, MINIMUM_SIZE // images.shape[-1])
    enlarged = images.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    return to_pil_image(make_grid(enlarged, nrow=count, padding=2, pad_value=0.5))
