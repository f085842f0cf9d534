"""Nodes that score what was not made here."""

from pathlib import Path

import pandas as pd

from onex_distill.datasets.captions import CaptionsDataset
from onex_distill.engine.compute import ComputeParams
from onex_distill.evaluation.anything.gather import gather_images
from onex_distill.evaluation.anything.params import ScoreParams
from onex_distill.evaluation.measures import METRICS, MetricsParams, measure
from onex_distill.evaluation.scored import ConfidenceParams
from onex_distill.evaluation.scores import parts_of
from onex_distill.evaluation.tables import comparison_table, wide_table
from onex_distill.storage.image_table import ImageTable
from onex_distill.storage.tensor_table import TensorTable


def gather_score_images(params: ScoreParams, compute: ComputeParams, runs: Path) -> ImageTable:
    """Images of every folder and pipeline."""
    captions = None if params.captions is None else CaptionsDataset(filepath=str(params.captions)).load()
    return gather_images(params, captions, compute, runs)


def score_images(
    features: TensorTable, params: ScoreParams, metrics: MetricsParams, confidence: ConfidenceParams
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """A row per folder or pipeline with every metric and its interval; the comparisons; the measurements.

    Pipelines have ``seconds_per_image``, of the whole call, and ``gflops_per_image`` too.

    Args:
        features: Rows of every network for every image.
        params: The settings, validated.
        metrics: The settings of every metric.
        confidence: Level, draws and groups of intervals.

    Returns:
        The metrics, the comparisons and the measurements.
    """
    sets = [scored for _, scored in parts_of(features, ["method"])]
    names = [scored.key for scored in sets]
    reference = next((scored for scored in sets if scored.key == params.reference), None)
    parts = [measure(name, sets, reference, getattr(metrics, name), confidence) for name in METRICS]
    measurements = pd.concat([part for part in parts if len(part)], ignore_index=True)
    counts = pd.DataFrame({"method": names, "images": [len(scored.index) for scored in sets]})
    for column in ("seconds", "gflops"):
        if column in features.index:
            counts[f"{column}_per_image"] = [float(scored.index[column].median()) for scored in sets]
    return wide_table(counts, measurements), comparison_table(measurements, confidence), measurements
