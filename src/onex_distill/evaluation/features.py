"""Features of images: every image decoded once, one pass per network, shard by shard over the ranks."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor

from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.job import Job
from onex_distill.engine.launch import launch
from onex_distill.engine.run import Run
from onex_distill.engine.tables import write_table
from onex_distill.evaluation.networks import Network
from onex_distill.evaluation.scorers.base import FeatureNetwork, NetworkParams, identity, load_network, missing_rows
from onex_distill.evaluation.scorers.weights import MissingScorer, find
from onex_distill.parameters import Params
from onex_distill.storage.files import write_text
from onex_distill.storage.image_table import ImageFolder
from onex_distill.storage.tensor_table import TensorTable

NETWORKS_FILE = "networks.json"
TABLE = "features"
ROW = "row"  # a column that is there whatever networks are missing


class ScorersParams(Params):
    """Networks that read images, the folder of their downloaded weights, and images per batch.

    Raises ValueError when two networks have one name.
    """

    networks: tuple[Network, ...]
    folder: Path
    batch_size: PositiveInt

    @model_validator(mode="after")
    def _distinct(self) -> "ScorersParams":
        names = [network.name for network in self.networks]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"two networks are called {repeated[0]!r}; give each a name of its own")
        return self


class FeaturesJob(Job):
    """Rows of every network for every image, columns ``<network>.<row>``; ``states`` tells weights apart."""

    images: ImageFolder
    params: ScorersParams
    states: tuple[str, ...]

    def run(self, run: Run) -> None:
        """Write the table and beside it what each network was, or why it is missing."""
        table = self.images.open()
        index, root = table.index, self.params.folder
        opened = {one.name: load_network(one, root, run.ranks.device) for one in self.params.networks}
        size = _rows_per_shard(self.params, index)
        grouped = size is not None
        networks = {
            one.name: opened[one.name]
            for one in self.params.networks
            if not isinstance(opened[one.name], MissingScorer) and (grouped or not one.whole_groups)
        }

        def extract(rows: range) -> Mapping[str, Tensor]:
            pictures = table.pictures(rows)
            captions = index["text"].iloc[rows.start : rows.stop].tolist()
            return {ROW: torch.tensor(rows)} | _rows_of_networks(networks, pictures, captions)

        write_table(run, TABLE, index, size or self.params.batch_size, extract)
        if run.ranks.is_first:
            described = [_describe(one, opened[one.name], root, grouped) for one in self.params.networks]
            write_text(run.result / TABLE / NETWORKS_FILE, json.dumps(described, indent=1))
            for one in self.params.networks:
                if one.name in networks:
                    for name, text in one.notes({part: found.folder(root) for part, found in one.sources().items()}):
                        write_text(run.result / TABLE / f"{one.name}.{name}", text)


def extract_features(images: ImageFolder, params: ScorersParams, compute: ComputeParams, folder: Path) -> TensorTable:
    """The features of a table of images; a finished run with the same images, settings and weights is taken as it is.

    Raises ValueError for a file of weights whose SHA-256 differs, and for images that a network cannot read.

    Args:
        images: The images.
        params: The settings, validated.
        compute: Ranks, precision and sharding.
        folder: The run's folder; a finished run in it is taken as it is.

    Returns:
        A row per image and a column per output of a network.

    Raises:
        ValueError: The SHA-256 of a file of weights differs, or a network cannot read the images.
    """
    states = tuple(json.dumps(_state(one, params.folder), sort_keys=True) for one in params.networks)
    job = FeaturesJob(folder=folder, compute=compute, images=images, params=params, states=states)
    return TensorTable(launch(job) / TABLE)


def networks_of(table: TensorTable) -> dict[str, dict[str, Any]]:
    """By its name, each network's ``identity``, or the ``missing`` reason; ``rows`` that it lacks have reasons too."""
    described = json.loads((table.folder / NETWORKS_FILE).read_text())
    return {str(one["name"]): one for one in described}


def note_of(table: TensorTable, network: str, name: str) -> Path:
    """Where a network's note is, beside its rows."""
    return table.folder / f"{network}.{name}"


def _rows_of_networks(networks: Mapping[str, Any], pictures: list[Any], captions: list[str]) -> dict[str, Tensor]:
    columns = {}
    for name, network in networks.items():
        loaded: FeatureNetwork = network
        for row, values in loaded.features(pictures, captions).items():
            columns[f"{name}.{row}"] = values.float()
    return columns


def _rows_per_shard(params: ScorersParams, index: pd.DataFrame) -> int | None:
    """A batch that holds whole captions if a network needs that, and None where captions have no common count."""
    if not any(one.whole_groups for one in params.networks):
        return params.batch_size
    changes = (index["prompt_row"] != index["prompt_row"].shift()).cumsum()
    counts = changes.value_counts()
    if counts.nunique() != 1 or changes.nunique() != index["prompt_row"].nunique():
        return None
    return int(counts.iloc[0]) * -(-params.batch_size // int(counts.iloc[0]))


def _describe(params: NetworkParams, opened: Any, root: Path, grouped: bool) -> dict[str, Any]:
    if isinstance(opened, MissingScorer):
        return {"name": params.name, "missing": opened.reason}
    if params.whole_groups and not grouped:
        return {"name": params.name, "missing": "captions have different numbers of images"}
    absent = {row: missing.reason for row, missing in missing_rows(params, root).items()}
    return {"name": params.name, "identity": identity(params, root), "rows": absent}


def _state(params: NetworkParams, root: Path) -> dict[str, str]:
    """What tells weights apart; a network that is missing now may be there in the next run."""
    if any(isinstance(find(source, root), str) for source in params.sources().values()):
        return {"model": params.name, "missing": "true"}
    return identity(params, root)
