"""Nodes that show results: grids, plots, the table as text, and one HTML page."""

from typing import Any

import pandas as pd
import plotly.express as px
from PIL import Image
from plotly.graph_objects import Figure

from onex_distill.evaluation.params import EvaluationParams, ReportParams
from onex_distill.evaluation.report.extremes import extremes_grid
from onex_distill.evaluation.report.markdown import markdown
from onex_distill.evaluation.report.page import Contents, page
from onex_distill.evaluation.sets import SampleSets
from onex_distill.metrics.labelled import labelled_grid


def draw_sample_grid(samples: SampleSets, params: EvaluationParams) -> Image.Image:
    """One row per method, one column per caption, from the same captions and noise, with labels."""
    rows, captions = [], []
    for key, table in samples.tables().items():
        first = table.index.reset_index(drop=True).drop_duplicates("prompt_row").head(params.grid_captions)
        rows.append(
            (
                str(table.index["method"].iloc[0] if "method" in table.index else key),
                table.pictures(first.index.to_numpy()),
            )
        )
        captions = first["text"].tolist()
    return labelled_grid(rows, captions)


def draw_extremes(samples: SampleSets, prompts: pd.DataFrame, params: EvaluationParams) -> Image.Image:
    """The best, the median and the worst captions of the last method."""
    table = list(samples.tables().values())[-1]
    name = table.index["method"].iloc[0]
    return extremes_grid(table, prompts[prompts["method"] == name], params.grid_captions)


def plot_losses(losses: pd.DataFrame) -> Figure:
    """Every loss of every training run over its steps, smoothed over a twentieth of the run."""
    parts = []
    for _, rows in losses.groupby(["run", "loss"], sort=False):
        smooth = rows["value"].rolling(max(1, len(rows) // 20), min_periods=1).mean()
        parts.append(rows.assign(value=smooth))
    count = losses["run"].nunique()
    figure = px.line(pd.concat(parts), x="step", y="value", color="loss", facet_col="run", facet_col_wrap=2)
    figure.update_layout(height=260 * ((count + 1) // 2) + 80, title="Losses per training")
    figure.for_each_annotation(lambda title: title.update(text=title.text.removeprefix("run=")))
    figure.update_yaxes(matches=None, showticklabels=True)
    return figure.update_xaxes(matches=None, showticklabels=True)


def plot_metrics(metrics: pd.DataFrame) -> Figure:
    """The first score against diversity, one point per method, its area proportional to the network evaluations."""
    columns = [name for name in ("alignment", "clip_score", "diversity", "lpips_diversity", "fid") if name in metrics]
    score = columns[0] if columns else "nfe"
    spread = next((name for name in columns[1:] if "diversity" in name), "nfe_flops")
    return px.scatter(metrics, x=spread, y=score, size="nfe", color="method", size_max=40, height=500)


def plot_intervals(measurements: pd.DataFrame) -> Figure:
    """Every metric of every method with its interval, a panel per metric."""
    known = measurements[measurements["reason"] == ""]
    figure = px.scatter(
        known.assign(above=known["high"] - known["value"], below=known["value"] - known["low"]),
        x="value",
        y="method",
        error_x="above",
        error_x_minus="below",
        facet_col="metric",
        facet_col_wrap=3,
        facet_row_spacing=0.04,
        labels={"value": "", "method": ""},
        height=220 * max(1, -(-known["metric"].nunique() // 3)) + 60,
    )
    figure.for_each_annotation(lambda title: title.update(text=title.text.removeprefix("metric=")))
    return figure.update_xaxes(matches=None, showticklabels=True)


def write_markdown(metrics: pd.DataFrame, measurements: pd.DataFrame, params: ReportParams) -> str:
    """Our rows and, apart from them, the published ones."""
    return markdown(metrics, measurements, params.published)


def write_report(
    metrics: pd.DataFrame,
    measurements: pd.DataFrame,
    comparisons: pd.DataFrame,
    losses: pd.DataFrame,
    samples: Image.Image,
    extremes: Image.Image,
    parameters: dict[str, Any],
) -> str:
    """One self-contained HTML page.

    Args:
        metrics: A row per method.
        measurements: A row per method and metric, with its interval.
        comparisons: A row per pair of methods and metric.
        losses: The loss histories.
        samples: The grid of samples.
        extremes: The grid of best and worst samples.
        parameters: All parameters of the run.

    Returns:
        The page.
    """
    contents = Contents(metrics, measurements, comparisons, losses, samples, extremes, parameters)
    return page(contents, ReportParams.model_validate(parameters["report"]))
