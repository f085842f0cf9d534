"""All metrics of one set of images as numbers: the one place where studies are scored."""

from pathlib import Path

import pandas as pd

from onex_distill.engine.compute import ComputeParams
from onex_distill.evaluation.features import ScorersParams, extract_features
from onex_distill.evaluation.measures import METRICS, MetricsParams, measure
from onex_distill.evaluation.scored import ConfidenceParams, Scored
from onex_distill.parameters import Params
from onex_distill.storage.image_table import ImageTable
from onex_distill.storage.tensor_table import TableFolder, TensorTable


class Scoring(Params):
    """What images are scored by: networks, metrics, and the features of the reference's images."""

    scorers: ScorersParams
    metrics: MetricsParams
    confidence: ConfidenceParams
    reference: TableFolder

    def score(self, scored: Scored) -> dict[str, float]:
        """Every metric that the configuration measures, by column; NaN where it does not apply."""
        reference = Scored("teacher", self.reference.open())
        return score_set(scored, reference, self.metrics, self.confidence)

    def score_images(self, images: dict[str, ImageTable], compute: ComputeParams, folder: Path) -> pd.DataFrame:
        """A row per set of images by its name as ``method``; features are made below ``folder``."""
        rows = []
        for number, (name, table) in enumerate(images.items()):
            features = extract_features(table.handle, self.scorers, compute, folder / f"features {number}")
            rows.append({"method": name} | self.score(Scored(name, features)))
        return pd.DataFrame(rows)


def score_set(
    scored: Scored, reference: Scored, metrics: MetricsParams, confidence: ConfidenceParams
) -> dict[str, float]:
    """Every metric that the configuration measures, by column; NaN where it does not apply.

    Args:
        scored: The set that is measured.
        reference: The set that it is compared with.
        metrics: The settings of every metric.
        confidence: Level, draws and groups of intervals.

    Returns:
        Values by column.
    """
    values: dict[str, float] = {}
    for name in METRICS:
        table = measure(name, [scored], reference, getattr(metrics, name), confidence)
        values |= dict(zip(table["metric"], table["value"].astype(float), strict=True))
    return values


def parts_of(table: TensorTable, columns: list[str]) -> list[tuple[tuple[object, ...], Scored]]:
    """The rows of a table that agree in some columns, as sets of their own, in the order of the table."""
    index = table.index.reset_index(drop=True)
    return [
        (values, Scored(" ".join(map(str, values)), table, tuple(part.index)))
        for values, part in index.groupby(columns, sort=False)
    ]
