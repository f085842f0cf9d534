"""The Inception network of FID and KID, as clean-fid runs it.

Shapes: N images.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from onex_distill.evaluation.scorers.base import Images, NetworkParams
from onex_distill.evaluation.scorers.recipes import RecipeName, pil_images, prepare
from onex_distill.evaluation.scorers.weights import Source, verify

SHA256_DIGITS = 64


class InceptionParams(NetworkParams):
    """inception-2015-12-05.pt, a TorchScript file: it may be run only after its SHA-256 was verified.

    ``patches`` takes a centre crop at full resolution in place of the whole image (patch FID).
    """

    gives: ClassVar[frozenset[str]] = frozenset({"pool"})
    kind: Literal["inception"] = "inception"
    weights: Source
    patches: bool = False

    def sources(self) -> Mapping[str, Source]:
        """The TorchScript file."""
        return {"weights": self.weights}

    def recipe(self) -> RecipeName:
        """clean-fid's resize, or the crop."""
        return "crop299" if self.patches else "clean299"

    def open(self, folders: Mapping[str, Path], device: torch.device) -> "Inception":
        """The network. Raises ValueError when no SHA-256 is given: the file can execute code."""
        name, digest = self.weights.files[0].name, self.weights.files[0].sha256
        if len(digest) != SHA256_DIGITS:
            raise ValueError(
                f"{self.name} has no whole SHA-256 for {name}, which may be run only when it is known; give it"
            )
        verify(folders["weights"] / name, digest)
        return Inception(
            torch.jit.load(folders["weights"] / name, map_location=device).eval().layers, self.recipe(), device
        )


class Inception:
    """The loaded network."""

    def __init__(self, layers: Any, recipe: RecipeName, device: torch.device) -> None:
        self.layers, self.recipe, self.device = layers, recipe, device

    @torch.no_grad()
    def features(self, images: Images, captions: Sequence[str]) -> dict[str, Tensor]:
        """``pool`` (N, 2048): what comes before the last layer, averaged over the image."""
        pixels = (prepare(self.recipe, pil_images(images)) - 128) / 128
        return {"pool": self.layers(pixels.to(self.device)).float().flatten(1).cpu()}
