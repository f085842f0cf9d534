"""LPIPS between the images of one caption: one pass of the backbone per image, all pairs from what it gives.

Shapes: N images, H W their size.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torchvision.models import alexnet, vgg16

from onex_distill.evaluation.scorers.base import Images, NetworkParams
from onex_distill.evaluation.scorers.clip import standardised
from onex_distill.evaluation.scorers.recipes import pil_images, prepare
from onex_distill.evaluation.scorers.states import read_state
from onex_distill.evaluation.scorers.weights import Source
from onex_distill.metrics.perceptual import lpips_vectors, mean_distance_to_others

# The published shift and scale are for pixels in [-1, 1]; these are the same for [0, 1].
MEAN = ((1 - 0.030) / 2, (1 - 0.088) / 2, (1 - 0.188) / 2)
STD = (0.458 / 2, 0.448 / 2, 0.450 / 2)
STAGES = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
"""The layers of the backbone whose activations are compared."""


class LpipsParams(NetworkParams):
    """``backbone`` is torchvision's AlexNet or VGG16, ``heads`` the learned weights of its channels (lpips 0.1)."""

    gives: ClassVar[frozenset[str]] = frozenset({"distance"})
    whole_groups: ClassVar[bool] = True

    kind: Literal["lpips"] = "lpips"
    net: Literal["alex", "vgg"]
    backbone: Source
    heads: Source
    preparation: Literal["lpips256", "lpips512"] = "lpips512"

    def sources(self) -> Mapping[str, Source]:
        """Backbone and heads."""
        return {"backbone": self.backbone, "heads": self.heads}

    def recipe(self) -> str:
        """The named recipe."""
        return self.preparation

    def open(self, folders: Mapping[str, Path], device: torch.device) -> "Lpips":
        """The network. Raises ValueError for the weights of another one."""
        path = folders["backbone"] / self.backbone.files[0].name
        layers = (alexnet if self.net == "alex" else vgg16)(weights=None).features
        state = {name.removeprefix("features."): value for name, value in read_state(path).items()}
        try:
            layers.load_state_dict({name: value for name, value in state.items() if name in layers.state_dict()})
        except RuntimeError as error:
            raise ValueError(
                f"{path} does not hold the weights of {self.net}; correct the scorer's backbone"
            ) from error
        heads_path = folders["heads"] / self.heads.files[0].name
        learned = read_state(heads_path)
        names = [f"lin{index}.model.1.weight" for index in range(len(STAGES[self.net]))]
        if any(name not in learned for name in names):
            raise ValueError(f"{heads_path} does not hold the heads of LPIPS; take lpips 0.1's {self.net}.pth")
        heads = [learned[name].flatten() for name in names]
        return Lpips(self, layers.eval().requires_grad_(False).to(device), heads)


class Lpips:
    """The loaded network."""

    def __init__(self, params: LpipsParams, layers: nn.Sequential, heads: list[Tensor]) -> None:
        self.params, self.layers = params, layers
        self.heads = [head.to(next(layers.parameters()).device) for head in heads]

    @torch.no_grad()
    def features(self, images: Images, captions: Sequence[str]) -> dict[str, Tensor]:
        """``distance`` (N,): the mean LPIPS of each image to the others of its caption, which must all be here.

        Raises ValueError for a caption with one image.
        """
        pixels = standardised(prepare(self.params.preparation, pil_images(images)), MEAN, STD)
        written = list(dict.fromkeys(captions))
        groups = torch.tensor([written.index(caption) for caption in captions])
        distances = torch.empty(len(groups))
        for group in range(len(written)):
            members = groups == group
            vectors = lpips_vectors(self.stages(pixels[members]), self.heads)
            distances[members] = mean_distance_to_others(vectors).float().cpu()
        return {"distance": distances}

    @torch.no_grad()
    def stages(self, pixels: Tensor) -> list[Tensor]:
        """Activations (N, C, h, w) of every stage, for standardised pixels (N, 3, H, W)."""
        x, stages = pixels.to(self.heads[0].device), []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in STAGES[self.params.net]:
                stages.append(x.clone())  # the layer after it may write in place
            if index == STAGES[self.params.net][-1]:
                break
        return stages
