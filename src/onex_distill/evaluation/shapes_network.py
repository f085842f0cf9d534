"""ShapesWorld's evaluator as one more feature network.

Shapes: N images of 32 x 32, D features.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from onex_distill.evaluation.scorers.base import Images, NetworkParams
from onex_distill.evaluation.scorers.weights import File, Source
from onex_distill.shapes.captions import read_caption
from onex_distill.shapes.networks import ShapesReader
from onex_distill.shapes.render import render
from onex_distill.shapes.world import (
    FREE,
    IMAGE_SIZE,
    NAMED,
    PARENT,
    VALUES,
    Attributes,
    conditional_probabilities,
    sample_attributes,
)
from onex_distill.storage.model_folder import ModelFolder

FILES = ("config.json", "diffusion_pytorch_model.safetensors")
RENDERED = 1024  # images that features are whitened by
FLOOR = 1e-3  # of the largest variance; directions below it hold noise alone
SEED = 5


class ShapesParams(NetworkParams):
    """The evaluator of ``location``: what it reads, and its features whitened by the renderer's images."""

    gives: ClassVar[frozenset[str]] = frozenset(
        {"features", "alignment", *FREE, *(f"{name}_expected" for name in FREE)}
    )
    kind: Literal["shapes"]
    location: str

    def sources(self) -> Mapping[str, Source]:
        """The evaluator's folder."""
        return {
            "evaluator": Source(hub="local", location=self.location, files=tuple(File(name=name) for name in FILES))
        }

    def open(self, folders: Mapping[str, Path], device: torch.device) -> "ShapesNetwork":
        """The evaluator, which runs on the CPU whatever the device."""
        folder = ModelFolder(path=folders["evaluator"], class_name="onex_distill.shapes.networks.ShapesReader")
        return ShapesNetwork(folder.load().eval(), *whitening(folder))

    def recipe(self) -> str:
        """No preparation: images have the size that the evaluator was made for."""
        return f"as_they_are_whitened_{RENDERED}"


class ShapesNetwork:
    """The loaded evaluator."""

    def __init__(self, reader: ShapesReader, mean: Tensor, matrix: Tensor) -> None:
        self.reader, self.mean, self.matrix = reader, mean, matrix

    @torch.no_grad()
    def features(self, images: Images, captions: Sequence[str]) -> dict[str, Tensor]:
        """Rows of every image.

        ``features`` (N, D) are whitened; ``alignment`` (N,) is 1 where all attributes that the caption names are
        shown; of every free attribute, ``<name>`` (N, 2) is the value read and the value of the named attribute that
        it follows, and ``<name>_expected`` (N, values) how the renderer would draw it. What needs a named attribute is
        NaN where the caption does not name it. Raises ValueError for images of another size.
        """
        pixels = _pixels(images)
        features = self.reader.features(pixels)
        read = {name: head(features).argmax(1) for name, head in self.reader.heads.items()}
        named = _named(captions)
        rows = {"features": (features - self.mean) @ self.matrix, "alignment": _aligned(read, named)}
        for name in FREE:
            parent = named[PARENT[name]]
            known = parent >= 0
            expected = conditional_probabilities(name, parent.clamp_min(0))
            rows[name] = torch.stack([read[name].float(), torch.where(known, parent.float(), torch.nan)], 1)
            rows[f"{name}_expected"] = torch.where(known[:, None], expected, torch.nan)
        return {name: values.float() for name, values in rows.items()}


def whitening(folder: ModelFolder) -> tuple[Tensor, Tensor]:
    """Mean (D,) and matrix (D, D) that give the evaluator's features of rendered images no mean and unit covariance.

    Without it a few features with a large variance decide every distance.
    """
    return _whitening(folder, folder.fingerprint())


@lru_cache(maxsize=4)
@torch.no_grad()
def _whitening(folder: ModelFolder, _fingerprint: str) -> tuple[Tensor, Tensor]:
    reader, draws = folder.load().eval(), torch.Generator().manual_seed(SEED)
    rendered = render(sample_attributes(RENDERED, draws), draws)
    features = torch.cat([reader.features(batch) for batch in rendered.split(256)]).double()
    values, vectors = torch.linalg.eigh(features.T.cov())
    scale = values.clamp_min(FLOOR * float(values.max())).rsqrt()
    return features.mean(0).float(), (vectors * scale @ vectors.T).float()


def _pixels(images: Images) -> Tensor:
    if not isinstance(images, Tensor):
        wrong = [image.size for image in images if image.size != (IMAGE_SIZE, IMAGE_SIZE)]
        if wrong:
            raise ValueError(_size_message(wrong[0]))
        images = torch.stack([pil_to_tensor(image.convert("RGB")) for image in images])
    if images.shape[-2:] != (IMAGE_SIZE, IMAGE_SIZE):
        raise ValueError(_size_message((images.shape[-1], images.shape[-2])))
    return images.float() / 255


def _size_message(size: tuple[int, int]) -> str:
    return f"ShapesWorld's evaluator reads {IMAGE_SIZE} x {IMAGE_SIZE} pixels, got {size[0]} x {size[1]}; use --env"


def _named(captions: Sequence[str]) -> Attributes:
    """Named attributes, -1 where a caption does not name one; int64 (N,) each."""
    rows = [read_caption(caption) for caption in captions]
    return {name: torch.tensor([row.get(name, -1) for row in rows]) for name in VALUES if name in NAMED}


def _aligned(read: Attributes, named: Attributes) -> Tensor:
    right = torch.stack([read[name] == named[name] for name in NAMED]).all(0)
    known = torch.stack([named[name] >= 0 for name in NAMED]).all(0)
    return torch.where(known, right.float(), torch.nan)
