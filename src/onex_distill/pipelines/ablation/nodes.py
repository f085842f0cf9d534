"""Nodes of the ablation: train and sample every variation, score the samples, draw the comparison."""

from pathlib import Path

import pandas as pd
import plotly.express as px
from plotly.graph_objects import Figure

from onex_distill.engine.compute import ComputeParams
from onex_distill.evaluation.inputs import SamplingInputs
from onex_distill.evaluation.measures import MetricsParams
from onex_distill.evaluation.scored import ConfidenceParams
from onex_distill.evaluation.studies import ablation
from onex_distill.evaluation.studies.ablation_params import VARIED, AblationParams
from onex_distill.storage.image_table import ImageTable
from onex_distill.storage.tensor_table import TensorTable


def train_variations(
    inputs: SamplingInputs, plan: pd.DataFrame, params: AblationParams, compute: ComputeParams, runs: Path
) -> ImageTable:
    """Images of every setting's student on the same plan."""
    return ablation.train_variations(inputs, plan, params, compute, runs)


def score_variations(
    features: TensorTable, teacher: TensorTable, metrics: MetricsParams, confidence: ConfidenceParams
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row per setting and seed, and the guided teacher's own row."""
    return ablation.score_variations(features, teacher, metrics, confidence)


def summarise_variations(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds, a row per setting."""
    return ablation.summarise_variations(table)


def plot_alignment_against_diversity(summary: pd.DataFrame, teacher: pd.DataFrame) -> Figure:
    """One curve along alpha, the other settings beside it, the guided teacher; bars are deviations over seeds."""
    counts = {name: summary[name].mode()[0] for name in VARIED if name != "alpha"}
    on_curve = (summary[list(counts)] == pd.Series(counts)).all(axis=1)
    labels = summary.apply(lambda row: ", ".join(f"{name} {row[name]}" for name in VARIED), axis=1)
    figure = px.scatter(
        summary.assign(setting=labels),
        x="diversity_mean",
        y="alignment_mean",
        error_x="diversity_std",
        error_y="alignment_std",
        color="setting",
        height=600,
    )
    curve = summary[on_curve].sort_values("alpha")
    figure.add_scatter(x=curve["diversity_mean"], y=curve["alignment_mean"], mode="lines", name="along alpha")
    figure.add_scatter(x=teacher["diversity"], y=teacher["alignment"], mode="markers", name="guided teacher")
    return figure
