"""DINOv2's image embedding, in which sets of images are compared.

Shapes: N images, D width.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from onex_distill.evaluation.scorers.base import Images, NetworkParams
from onex_distill.evaluation.scorers.clip import standardised
from onex_distill.evaluation.scorers.recipes import pil_images, prepare
from onex_distill.evaluation.scorers.states import build, read_state
from onex_distill.evaluation.scorers.weights import Source

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Dinov2Params(NetworkParams):
    """config.json and one safetensors file, the last of ``weights``."""

    gives: ClassVar[frozenset[str]] = frozenset({"image"})
    kind: Literal["dinov2"] = "dinov2"
    weights: Source

    def sources(self) -> Mapping[str, Source]:
        """Weights and configuration."""
        return {"weights": self.weights}

    def recipe(self) -> str:
        """The whole image to a square of 224."""
        return "square224"

    def open(self, folders: Mapping[str, Path], device: torch.device) -> "Dinov2":
        """The network."""
        folder = folders["weights"]
        path = folder / next(file.name for file in self.weights.files if file.name.endswith(".safetensors"))
        config = Dinov2Config.from_dict(json.loads((folder / "config.json").read_text()))
        return Dinov2(build(Dinov2Model, config, read_state(path), path).to(device))


class Dinov2:
    """The loaded network."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @torch.no_grad()
    def features(self, images: Images, captions: Sequence[str]) -> dict[str, Tensor]:
        """``image`` (N, D): the normalised first token."""
        pixels = standardised(prepare("square224", pil_images(images)), MEAN, STD).to(self.model.device)
        return {"image": self.model(pixel_values=pixels).last_hidden_state[:, 0].float().cpu()}
