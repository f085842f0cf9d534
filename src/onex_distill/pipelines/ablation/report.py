"""Nodes that show the ablation: means with error bars, and alignment against diversity along alpha."""

import pandas as pd
import plotly.express as px
from plotly.graph_objects import Figure

from onex_distill.pipelines.ablation.params import VARIED


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds, a row a setting."""
    grouped = table.drop(columns="seed").groupby(VARIED, sort=False)
    summary = grouped.agg(["mean", "std"])
    summary.columns = summary.columns.map("_".join)
    return summary.reset_index()


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
