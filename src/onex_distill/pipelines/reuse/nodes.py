"""Nodes of the reuse pipeline."""

import pandas as pd
import plotly.express as px
from plotly.graph_objects import Figure

from onex_distill.evaluation.inputs import SamplingInputs
from onex_distill.evaluation.studies import reuse
from onex_distill.storage.model_folder import ModelFolder


def measure_reuse_error(
    inputs: SamplingInputs, plan: pd.DataFrame, params: reuse.ReuseParams, **students: ModelFolder
) -> pd.DataFrame:
    """Reuse errors of teacher and students from the same captions and noise.

    Args:
        inputs: What is sampled with.
        plan: A row per image: its caption and noise seed.
        params: The settings, validated.
        **students: Transformers by name.

    Returns:
        A row per model, step and band.
    """
    return reuse.measure_reuse_error(students, inputs, plan, params)


def plot_reuse_error(table: pd.DataFrame) -> Figure:
    """Reuse error against block index, a panel per stream, a line per model and step; bands are left to the table."""
    blocks = table[table["stop"] == table["block"] + 1]
    lines = {"x": "block", "y": "reuse_error", "color": "model", "line_dash": "step", "facet_col": "stream"}
    return px.line(blocks, **lines, markers=True, height=450)
