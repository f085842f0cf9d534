"""How images are prepared for a network: the resize decides the score, so every recipe has a name.

Shapes: N images, H W their size, S the size that a network reads; results are float32 (N, 3, S, S) in [0, 255].
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

RecipeName = Literal[
    "clean299",
    "crop299",
    "clip224",
    "clip224_from256",
    "clip336",
    "hps224",
    "hps224_unantialiased",
    "lpips256",
    "lpips512",
    "square224",
    "square384",
]

_BICUBIC = Image.Resampling.BICUBIC


def pil_images(images: Sequence[Image.Image] | Tensor) -> list[Image.Image]:
    """RGB images as PIL. Raises ValueError for another mode, another kind of tensor, and no image at all."""
    if isinstance(images, Tensor):
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images are {images.dtype} {tuple(images.shape)}; give uint8 (N, 3, H, W)")
        images = [Image.fromarray(image.permute(1, 2, 0).cpu().numpy()) for image in images]
    if not images:
        raise ValueError("there are no images to score; give at least one")
    modes = sorted({image.mode for image in images} - {"RGB"})
    if modes:
        raise ValueError(f"an image has mode {modes[0]}, not RGB; convert all images to RGB")
    return list(images)


def prepare(name: RecipeName, images: Sequence[Image.Image]) -> Tensor:
    """Images, float32 (N, 3, S, S) in [0, 255], as the named recipe makes them from RGB images of any sizes.

    Raises ValueError for an image that is smaller than a crop.
    """
    return torch.stack([RECIPES[name](image) for image in images])


def _clean299(image: Image.Image) -> Tensor:
    """clean-fid's: each channel as float32, PIL's bicubic, no rounding."""
    channels = [Image.fromarray(channel) for channel in np.asarray(image, dtype=np.float32).transpose(2, 0, 1)]
    resized = np.stack([np.asarray(channel.resize((299, 299), _BICUBIC)) for channel in channels])
    return torch.from_numpy(resized.clip(0, 255))


def _crop299(image: Image.Image) -> Tensor:
    """The centre at full resolution."""
    if min(image.size) < 299:
        raise ValueError(f"an image of {image.width} x {image.height} has no patch of 299 x 299; leave patch FID out")
    return _centre(image, 299)


def _clip(size: int) -> Callable[[Image.Image], Tensor]:
    """CLIP's: the shorter side to ``size`` with PIL's bicubic, then the centre."""

    def recipe(image: Image.Image) -> Tensor:
        shorter = min(image.size)  # the longer side is cut to a whole number, as torchvision does
        return _centre(image.resize((size * image.width // shorter, size * image.height // shorter), _BICUBIC), size)

    return recipe


def _clip224_from256(image: Image.Image) -> Tensor:
    """DMD2's: shrunk to 256 x 256 with Lanczos, then CLIP's."""
    return _clip(224)(image.resize((256, 256), Image.Resampling.LANCZOS))


def _square(size: int) -> Callable[[Image.Image], Tensor]:
    """The whole image to a square with PIL's bicubic."""

    def recipe(image: Image.Image) -> Tensor:
        return _tensor(image.resize((size, size), _BICUBIC))

    return recipe


def _hps224(image: Image.Image) -> Tensor:
    """HPSv2's: the longest side to 224 with an antialiased bicubic, zeros around it."""
    wide, high = _longest(image, 224)
    return _padded(_tensor(image.resize((wide, high), _BICUBIC)), 224)


def _hps224_unantialiased(image: Image.Image) -> Tensor:
    """HPSv2's on tensors of torchvision releases that did not antialias: numbers of that time came from it."""
    wide, high = _longest(image, 224)
    resized = interpolate(_tensor(image)[None], (high, wide), mode="bicubic", align_corners=False, antialias=False)
    return _padded(resized[0], 224)


def _longest(image: Image.Image, size: int) -> tuple[int, int]:
    scale = size / max(image.size)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def _padded(image: Tensor, size: int) -> Tensor:
    """Zeros around an image (3, H, W), the odd pixel at the right and the bottom."""
    high, wide = size - image.shape[1], size - image.shape[2]
    return pad(image, (wide // 2, wide - wide // 2, high // 2, high - high // 2))


def _centre(image: Image.Image, size: int) -> Tensor:
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return _tensor(image.crop((left, top, left + size, top + size)))


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image, dtype=np.float32).transpose(2, 0, 1).copy())


RECIPES: dict[RecipeName, Callable[[Image.Image], Tensor]] = {
    "clean299": _clean299,
    "crop299": _crop299,
    "clip224": _clip(224),
    "clip224_from256": _clip224_from256,
    "clip336": _clip(336),
    "hps224": _hps224,
    "hps224_unantialiased": _hps224_unantialiased,
    "lpips256": _square(256),
    "lpips512": _square(512),
    "square224": _square(224),
    "square384": _square(384),
}
