"""The picture of the ablation."""

import pandas as pd
import plotly.express as px
from plotly.graph_objects import Figure

from onex_distill.evaluation.studies.ablation_params import VARIED


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
