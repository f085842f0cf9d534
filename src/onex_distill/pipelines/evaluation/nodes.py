"""Nodes that score samples: one a metric, each a table with a row a method.

Every metric node takes the samples of all methods by keyword; the table names the method that each was sampled with.
"""

from typing import Any

import pandas as pd
import torch
from torch import Tensor

from onex_distill.evaluation.params import EvaluationParams
from onex_distill.metrics.distances import diversity, frechet_distance
from onex_distill.metrics.manifolds import precision_recall
from onex_distill.shapes import attributes
from onex_distill.shapes.captions import named_attributes, unreadable_captions
from onex_distill.shapes.features import extract_features
from onex_distill.shapes.networks import ShapesReader
from onex_distill.shapes.world import FREE, Attributes
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable

REFERENCE = "teacher"


def compute_fid(evaluator: ModelFolder, **samples: TensorTable) -> pd.DataFrame:
    """Frechet distance between each method's samples and the teacher's; the teacher itself has none."""
    embedded = _features(evaluator.load(), samples)
    rows = [
        {"method": _name(table), "fid": None if key == REFERENCE else _fid(embedded, key)}
        for key, table in samples.items()
    ]
    return pd.DataFrame(rows).astype({"fid": float})


def compute_alignment(evaluator: ModelFolder, **samples: TensorTable) -> pd.DataFrame:
    """Share of images that show every attribute their caption names; empty where captions do not name them all."""
    if not _readable(samples):
        return _empty(samples, ["alignment"])
    rows = [
        {"method": _name(table), "alignment": attributes.alignment(_read(evaluator.load(), table), _named(table))}
        for table in samples.values()
    ]
    return pd.DataFrame(rows)


def compute_diversity(evaluator: ModelFolder, **samples: TensorTable) -> pd.DataFrame:
    """Mean pairwise feature distance between the images of one caption."""
    embedded = _features(evaluator.load(), samples)
    rows = [
        {"method": _name(table), "diversity": diversity(embedded[key], _captions(table))}
        for key, table in samples.items()
    ]
    return pd.DataFrame(rows)


def compute_precision_recall(evaluator: ModelFolder, params: EvaluationParams, **samples: TensorTable) -> pd.DataFrame:
    """Precision and recall against the teacher's samples."""
    embedded = _features(evaluator.load(), samples)
    rows = []
    for key, table in samples.items():
        precision, recall = precision_recall(embedded[key], embedded[REFERENCE], params.neighbours)
        rows.append({"method": _name(table), "precision": precision, "recall": recall})
    return pd.DataFrame(rows)


def compute_entropy(evaluator: ModelFolder, **samples: TensorTable) -> pd.DataFrame:
    """Conditional entropy of each free attribute, in nats, and its distance to the renderer's distribution.

    Empty where captions do not name colour, shape and fill, on which both are conditioned.
    """
    if not _readable(samples):
        return _empty(samples, [f"{kind}_{name}" for kind in ("entropy", "total_variation") for name in FREE])
    rows = []
    for table in samples.values():
        read, named = _read(evaluator.load(), table), _named(table)
        entropy = {f"entropy_{name}": value for name, value in attributes.entropies(read, named).items()}
        variation = {f"total_variation_{name}": attributes.total_variation(name, read, named) for name in FREE}
        rows.append({"method": _name(table), **entropy, **variation})
    return pd.DataFrame(rows)


def collect_costs(**costs: dict[str, Any]) -> pd.DataFrame:
    """Steps, evaluations and seconds of every method."""
    return pd.DataFrame(list(costs.values()))


def build_metrics_table(costs: pd.DataFrame, *metrics: pd.DataFrame) -> pd.DataFrame:
    """Join the tables of single metrics, a row a method."""
    table = costs
    for metric in metrics:
        table = table.merge(metric, on="method", how="left", validate="one_to_one")
    return table


def _name(table: TensorTable) -> str:
    return str(table.index["method"].iloc[0])


def _readable(samples: dict[str, TensorTable]) -> bool:
    """Whether every caption names what the evaluator looks for."""
    return not any(unreadable_captions(table.index["text"].tolist()) for table in samples.values())


def _empty(samples: dict[str, TensorTable], columns: list[str]) -> pd.DataFrame:
    """A row per method with empty cells."""
    return pd.DataFrame({"method": [_name(table) for table in samples.values()]} | dict.fromkeys(columns, float("nan")))


def _captions(table: TensorTable) -> Tensor:
    return torch.tensor(table.index["prompt_row"].to_list())


def _named(table: TensorTable) -> Attributes:
    return named_attributes(table.index["text"].tolist())


@torch.no_grad()
def _read(evaluator: ShapesReader, table: TensorTable) -> Attributes:
    batches = [evaluator.read(table.read("image", rows).float() / 255) for rows in table.batches(256)]
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def _features(evaluator: ShapesReader, samples: dict[str, TensorTable]) -> dict[str, Tensor]:
    return {key: extract_features(evaluator, table.column("image")) for key, table in samples.items()}


def _fid(embedded: dict[str, Tensor], key: str) -> float:
    return frechet_distance(embedded[key], embedded[REFERENCE])
