"""Nodes of the recovery pipeline: train and sample with every seed, score, and say what share was recovered."""

from pathlib import Path

import pandas as pd
import plotly.express as px
from plotly.graph_objects import Figure

from onex_distill.distill.stage_two.inputs import AdversarialInputs
from onex_distill.engine.compute import ComputeParams
from onex_distill.evaluation.inputs import SamplingInputs
from onex_distill.evaluation.measures import MetricsParams
from onex_distill.evaluation.scored import ConfidenceParams
from onex_distill.evaluation.studies import recovery
from onex_distill.evaluation.studies.recovery_params import RecoveryParams
from onex_distill.storage.image_table import ImageTable
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable


def train_recovery(
    student: ModelFolder,
    refinement: AdversarialInputs,
    sampling: SamplingInputs,
    plan: pd.DataFrame,
    params: RecoveryParams,
    compute: ComputeParams,
    runs: Path,
) -> ImageTable:
    """Images of every contender and seed on the same plan."""
    return recovery.train_recovery(student, refinement, sampling, plan, params, compute, runs)


def score_recovery(
    features: TensorTable, teacher: TensorTable, metrics: MetricsParams, confidence: ConfidenceParams
) -> pd.DataFrame:
    """A row per training, seed and method, and the share of plain caching's loss that each recovers."""
    return recovery.score_recovery(features, teacher, metrics, confidence)


def summarise_recovery(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds, a row per training and method."""
    return recovery.summarise_recovery(table)


def plot_recovery(table: pd.DataFrame) -> Figure:
    """Distance to the uncached images against alignment, a mark per seed, a panel per training."""
    return px.scatter(
        table,
        x="fid_uncached",
        y="alignment",
        color="method",
        symbol="method",
        facet_col="training",
        hover_data="seed",
        height=450,
    )
