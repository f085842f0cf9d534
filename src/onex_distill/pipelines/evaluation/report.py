"""Nodes that show results: the sample grid, the plots and one HTML page."""

import base64
import io
from html import escape

import pandas as pd
import plotly.express as px
from PIL import Image
from plotly.graph_objects import Figure

from onex_distill.evaluation.params import EvaluationParams
from onex_distill.metrics.grids import image_grid
from onex_distill.storage.tensor_table import TensorTable

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>onex-distill</title>
<style>body {{ font-family: sans-serif; margin: 2rem auto; max-width: 75rem }} table {{ border-collapse: collapse }}
td, th {{ padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #ddd }} img {{ max-width: 100% }}
.wide {{ overflow-x: auto }}</style>
</head><body><h1>onex-distill</h1><h2>Metrics</h2><div class="wide">{table}</div>{plots}
<h2>Samples</h2><p>One row a method ({methods}), one column a caption ({captions}); same captions, same noise.</p>
<img alt="samples by method" src="data:image/png;base64,{grid}"></body></html>
"""


def draw_sample_grid(params: EvaluationParams, **samples: TensorTable) -> Image.Image:
    """One row a method, one column a caption, from the same captions and noise."""
    return image_grid([table.read("image", _grid_rows(table, params)).float() / 255 for table in samples.values()])


def plot_losses(**losses: pd.DataFrame) -> Figure:
    """Every loss of every training run over its steps, smoothed over a twentieth of the run."""
    parts = []
    for run, table in losses.items():
        columns = [str(name) for name in table.columns if str(name).endswith("loss")]
        window = max(1, len(table) // 20)
        smooth = table[columns].rolling(window, min_periods=1).mean()
        long = smooth.assign(step=table["step"]).melt("step", var_name="loss").dropna()
        parts.append(long.assign(run=run))
    figure = px.line(pd.concat(parts), x="step", y="value", color="loss", facet_col="run", facet_col_wrap=2)
    figure.update_layout(height=260 * (len(losses) + 1) // 2)
    figure.update_yaxes(matches=None, showticklabels=True)
    figure.update_xaxes(matches=None, showticklabels=True)
    return figure


def plot_metrics(metrics: pd.DataFrame) -> Figure:
    """Alignment against diversity, one point a method, its area proportional to the network evaluations."""
    return px.scatter(metrics, x="diversity", y="alignment", size="nfe", color="method", size_max=40, height=500)


def write_report(
    metrics: pd.DataFrame,
    loss_plot: Figure,
    metrics_plot: Figure,
    grid: Image.Image,
    params: EvaluationParams,
    **samples: TensorTable,
) -> str:
    """One self-contained HTML page; captions and names are escaped."""
    buffer = io.BytesIO()
    grid.save(buffer, format="PNG")
    first = next(iter(samples.values()))
    captions = first.index["text"].iloc[_grid_rows(first, params)]
    plots = metrics_plot.to_html(full_html=False, include_plotlyjs=True)
    plots += loss_plot.to_html(full_html=False, include_plotlyjs=False)
    return PAGE.format(
        table=metrics.to_html(index=False, float_format="{:.4g}".format, escape=True),
        plots=plots,
        methods=escape(", ".join(str(table.index["method"].iloc[0]) for table in samples.values())),
        captions=escape("; ".join(captions)),
        grid=base64.b64encode(buffer.getvalue()).decode(),
    )


def _grid_rows(table: TensorTable, params: EvaluationParams) -> list[int]:
    """The first image of the first captions."""
    first = ~table.index["prompt_row"].duplicated().to_numpy()
    return [int(row) for row in first.nonzero()[0][: params.grid_captions]]
