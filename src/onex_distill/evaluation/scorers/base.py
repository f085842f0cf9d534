"""The interface of everything that scores images.

A *feature network* is described by a frozen configuration and loaded into an object that gives one row per image.
Metrics read rows (``onex_distill.metrics``) and know no network.

Shapes: N images, H W their size in pixels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from PIL import Image
from torch import Tensor

from onex_distill.evaluation.scorers.weights import MissingScorer, Source, find, fingerprint
from onex_distill.parameters import Params

Images = Sequence[Image.Image] | Tensor
"""RGB images: PIL, or uint8 (N, 3, H, W)."""


class FeatureNetwork(Protocol):
    """A loaded network."""

    def features(self, images: Images, captions: Sequence[str]) -> dict[str, Tensor]:
        """Rows by name, each float32 (N, ...) on the CPU; caption i belongs to image i.

        Raises ValueError for images that cannot be scored.
        """
        ...


class NetworkParams(Params):
    """What every configuration of a network has: a ``kind``, and the ``name`` under which its rows are stored."""

    whole_groups: ClassVar[bool] = False
    """True when rows depend on the other images of the same caption, so that a batch must hold all of them."""
    gives: ClassVar[frozenset[str]]
    """Names of its rows, besides those of ``optional`` files."""

    kind: str
    name: str

    def sources(self) -> Mapping[str, Source]:
        """The files that the network is made from, by role."""
        raise NotImplementedError

    def optional(self) -> Mapping[str, Source]:
        """Files for one more row each, by its name; the network runs without them."""
        return {}

    def notes(self, folders: Mapping[str, Path]) -> Sequence[tuple[str, str]]:
        """Names and texts of files that metrics need with the rows, from the folders of ``sources``."""
        return ()

    def open(self, folders: Mapping[str, Path], device: torch.device) -> FeatureNetwork:
        """The network, from the folders of ``sources``, and of those of ``optional`` that are there."""
        raise NotImplementedError

    def runs_on_cpu(self) -> bool:
        """False for a network that is refused on the CPU."""
        return True

    def recipe(self) -> str:
        """The name of the recipe that prepares the images."""
        raise NotImplementedError


def load_network(params: NetworkParams, root: Path, device: torch.device) -> FeatureNetwork | MissingScorer:
    """The loaded network, or what is missing and how to get it.

    Raises ValueError for a file whose SHA-256 differs, and for weights that are not those of the architecture.
    """
    if device.type == "cpu" and not params.runs_on_cpu():
        return MissingScorer(params.name, f"{params.kind} runs on a GPU only; leave it out or run where there is one")
    folders: dict[str, Path] = {}
    for role, source in params.sources().items():
        folder = find(source, root)
        if isinstance(folder, str):
            return MissingScorer(params.name, folder)
        folders[role] = folder
    absent = missing_rows(params, root)
    folders |= {row: source.folder(root) for row, source in params.optional().items() if row not in absent}
    return params.open(folders, device)


def missing_rows(params: NetworkParams, root: Path) -> dict[str, MissingScorer]:
    """The rows that a network which can be loaded will not give, because their own files are missing."""
    found = {row: find(source, root) for row, source in params.optional().items()}
    return {row: MissingScorer(params.name, folder) for row, folder in found.items() if isinstance(folder, str)}


def identity(params: NetworkParams, root: Path) -> dict[str, str]:
    """What makes numbers of this network comparable: its settings, recipe, revisions and the SHA-256 of its files.

    The network's files must be there (``load_network`` gave no MissingScorer).
    """
    absent = missing_rows(params, root)
    optional = {row: source for row, source in params.optional().items() if row not in absent}
    sources = {**params.sources(), **optional}
    return {
        "model": params.name,
        "kind": params.kind,
        "recipe": params.recipe(),
        "settings": params.model_dump_json(exclude=set(sources)),
        **{
            f"{role}_{key}": value
            for role, source in sources.items()
            for key, value in fingerprint(source, root).items()
        },
    }
