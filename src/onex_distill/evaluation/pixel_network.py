"""What pixels say by themselves: saturation and contrast, which distilled models overshoot first.

Shapes: N images, H W their size in pixels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from onex_distill.evaluation.scorers.base import Images, NetworkParams
from onex_distill.evaluation.scorers.weights import Source
from onex_distill.metrics.colours import contrast, saturation


class PixelsParams(NetworkParams):
    """It has no weights and reads images as they are."""

    gives: ClassVar[frozenset[str]] = frozenset({"saturation", "contrast"})
    kind: Literal["pixels"]

    def sources(self) -> Mapping[str, Source]:
        """None."""
        return {}

    def open(self, folders: Mapping[str, Path], device: torch.device) -> "Pixels":
        """Ready at once."""
        return Pixels()

    def recipe(self) -> str:
        """No preparation."""
        return "as_they_are"


class Pixels:
    """Saturation and contrast."""

    def features(self, images: Images, captions: Sequence[str]) -> dict[str, Tensor]:
        """``saturation`` and ``contrast`` (N,) of ``metrics.colours``; images may differ in size."""
        tensors = [image if isinstance(image, Tensor) else pil_to_tensor(image.convert("RGB")) for image in images]
        measured = {"saturation": saturation, "contrast": contrast}
        return {
            name: torch.cat([function(tensor[None]) for tensor in tensors]).float()
            for name, function in measured.items()
        }
