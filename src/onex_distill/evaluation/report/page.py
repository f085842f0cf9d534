"""The report: one page of HTML that needs no network, reads on a telephone and by a screen reader."""

import base64
import io
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from typing import Any, NamedTuple

import pandas as pd
import yaml
from PIL import Image

from onex_distill.evaluation.params import ReportParams
from onex_distill.evaluation.published import SOURCE, published_table
from onex_distill.evaluation.report.charts import Point, lines, scatter
from onex_distill.evaluation.report.columns import ARROWS, MAIN, PRIMARY, described, number
from onex_distill.evaluation.report.verdict import verdict
from onex_distill.evaluation.sets import NULL, REFERENCE, TARGET

MOST = 8  # evaluations of what the charts show
PACKAGES = ("torch", "diffusers", "transformers", "kedro", "clean-fid")
STYLE = """
:root{color-scheme:light dark;--ink:#1a1a1a;--paper:#fff;--rule:#d7d7d7;--soft:#f4f4f4;--bad:#b00020}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e8;--paper:#16181b;--rule:#3d4248;--soft:#22262b;--bad:#ff6b7d}}
*{box-sizing:border-box}body{margin:0 auto;padding:1rem;max-width:70rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}h1{font-size:1.6rem}h2{font-size:1.25rem;margin-top:2rem}
.verdict{font-size:1.1rem;border-left:4px solid #0072b2;padding:.2rem 1rem;background:var(--soft)}
.banner{background:var(--bad);color:#fff;padding:.7rem 1rem;font-weight:600}
@media(prefers-color-scheme:dark){.banner{color:#16181b}}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:.3rem 0}th,td{padding:.35rem .6rem;border-bottom:1px solid var(--rule);text-align:right;
vertical-align:top;white-space:nowrap}th[scope=row],th:first-child{text-align:left}thead th{border-bottom:2px solid}
th[scope=row]{position:sticky;left:0;background:var(--paper)}tr.own th[scope=row]{background:var(--soft)}
small{display:block;opacity:.75;font-weight:400}tr.own{background:var(--soft);font-weight:600}
img,svg{max-width:100%;height:auto}svg{width:100%;max-width:640px;font:13px system-ui,sans-serif}
svg text{fill:var(--ink)}.rule{stroke:var(--rule)}figure{margin:1rem 0}
figure.wide img{min-width:56rem}figure.wide figcaption{position:sticky;left:0}
.legend{list-style:none;padding:0;margin:.3rem 0;display:flex;flex-wrap:wrap;gap:.2rem 1rem}
.level{stroke:var(--ink);stroke-dasharray:6 4}.key{display:inline-block;width:.8em;height:.8em;margin-right:.4em}
.charts{display:grid;gap:1rem;
grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr))}details{margin:.8rem 0}summary{cursor:pointer}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--soft);padding:.8rem}img{background:#fff}
"""
HOW = """<p>A number is followed by its 95 % interval: where it would lie if other captions had been drawn from the same
kind. ↑ and ↓ say which way is better. Distances (FID) are to the teacher's images of the same captions and noise; no
method can be expected below the row of the teacher with other noise, which is their floor. Means over captions have
bootstrap intervals, distances and entropies those of a jackknife over groups of captions. Differences between methods
are tested on the same captions and noise; p is adjusted for the number of metrics (Holm).</p>"""


class Contents(NamedTuple):
    """What the page shows."""

    metrics: pd.DataFrame
    measurements: pd.DataFrame
    comparisons: pd.DataFrame
    losses: pd.DataFrame
    samples: Image.Image
    extremes: Image.Image
    parameters: Mapping[str, Any]


def page(contents: Contents, params: ReportParams) -> str:
    """The whole page; names and captions are escaped. Raises ValueError when the student has no row."""
    keys = contents.measurements.drop_duplicates("key").set_index("key")["method"]
    metrics = contents.metrics
    params = params.model_copy(update={"student": str(keys.get(params.student, params.student))})
    teacher, null = str(keys.get(REFERENCE, metrics["method"].iloc[0])), keys.get(NULL)
    sentences = verdict(metrics, teacher, null, keys.get(TARGET), params)
    banner = '<p class="banner" role="alert">Made at test sizes: no number on this page means anything.</p>'
    spoken = " ".join(escape(sentence) for sentence in sentences)
    shown = ", ".join(metrics["method"].astype(str))
    body = [
        banner if params.meaningless else "",
        "<h1>How good is the student?</h1>",
        f'<p class="verdict">{spoken}</p>',
        "<h2>What was measured</h2>",
        _metrics_table(metrics, [name for name in MAIN if name in metrics], params.student, "The columns that matter"),
        _folded(metrics, contents, params),
        f'<h2>Quality against cost</h2><div class="charts">{_quality_charts(metrics, keys, teacher, null)}</div>',
        "<h2>Samples</h2>",
        _picture(contents.samples, f"A row per method, a column per caption; same captions and same noise: {shown}."),
        f"<h2>Best and worst of {escape(params.student)}</h2>",
        _picture(
            contents.extremes, "Captions by their score: best, median and worst, each with its score and caption."
        ),
        f'<h2>Trainings</h2><div class="charts">{_loss_charts(contents.losses)}</div>',
        f"<h2>How to read this</h2>{HOW}",
        f"<h2>What was run</h2>{_what_was_run(contents.parameters)}",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>onex-distill: report</title>'
        f"<style>{STYLE}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def _metrics_table(metrics: pd.DataFrame, names: list[str], student: str, caption: str) -> str:
    heads = "".join(_head(name) for name in names)
    rows = []
    for _, row in metrics.iterrows():
        own = ' class="own"' if row["method"] == student else ""
        cells = "".join(f"<td>{_cell(row, name)}</td>" for name in names)
        rows.append(f'<tr{own}><th scope="row">{escape(str(row["method"]))}</th>{cells}</tr>')
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table><caption>{escape(caption)}'
        f'</caption><thead><tr><th scope="col">Method</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        "</div>"
    )


def _head(name: str) -> str:
    column = described(name)
    better = {"higher": "higher is better", "lower": "lower is better", "": ""}[column.better]
    arrow = f' <span title="{better}" aria-label="{better}">{ARROWS[column.better]}</span>' if better else ""
    return f'<th scope="col">{escape(column.title)}{arrow}<small>{escape(column.unit)}</small></th>'


def _cell(row: pd.Series, name: str) -> str:
    digits = described(name).digits
    value = number(float("nan") if pd.isna(row[name]) else float(row[name]), digits)
    low, high = (float(row.get(f"{name}_{end}", "nan")) for end in ("low", "high"))
    interval = "" if pd.isna(low) else f"<small>{number(low, digits)} to {number(high, digits)}</small>"
    return value + interval


def _folded(metrics: pd.DataFrame, contents: Contents, params: ReportParams) -> str:
    """Everything else, a click away."""
    names = [str(name) for name in metrics]
    rest = [name for name in names if name not in (*MAIN, "method") and not name.endswith(("_low", "_high"))]
    parts = [("All other columns", _metrics_table(metrics, rest, params.student, "All other columns"))]
    parts.append((f"{params.student} against the others", _comparisons(contents.comparisons, params.student)))
    empty = contents.measurements[contents.measurements["reason"] != ""]
    if len(empty):
        items = empty.groupby(["metric", "reason"], sort=False)["method"].agg(", ".join).reset_index()
        listed = "".join(
            f"<li>{escape(described(row['metric']).title)} of {escape(row['method'])}: {escape(row['reason'])}</li>"
            for _, row in items.iterrows()
        )
        parts.append(("Empty cells, and why", f"<ul>{listed}</ul>"))
    if params.published is not None:
        published = published_table(params.published)
        names = [str(name) for name in published if name not in ("method", "source")]
        parts.append((f"Rows {SOURCE}", _metrics_table(published, names, "", SOURCE)))
    return "".join(f"<details><summary>{escape(title)}</summary>{content}</details>" for title, content in parts)


def _comparisons(comparisons: pd.DataFrame, student: str) -> str:
    """Differences of the student to every other method that it compares with."""
    rows = []
    for _, row in comparisons.iterrows():
        if student not in (row["method_a"], row["method_b"]) or row["reason"]:
            continue
        sign = 1 if row["method_a"] == student else -1
        other = row["method_b"] if sign > 0 else row["method_a"]
        digits = described(row["metric"]).digits
        ends = sorted((sign * row["low"], sign * row["high"]))
        rows.append(
            f'<tr><th scope="row">{escape(described(row["metric"]).title)}</th><td>{escape(other)}</td>'
            f"<td>{number(sign * row['difference'], digits)}<small>{number(ends[0], digits)} to "
            f"{number(ends[1], digits)}</small></td><td>{number(row['p_holm'], 4)}</td>"
            f"<td>{escape(row['test'])}</td></tr>"
        )
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("Metric", "Against", "Difference", "p (Holm)", "Test"))
    caption = f"{student} minus the other method, on the same captions and noise"
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table><caption>{escape(caption)}'
        f"</caption><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _quality_charts(metrics: pd.DataFrame, keys: "pd.Series[str]", teacher: str, null: str | None) -> str:
    """FID and the first score of the students against evaluations; what the teacher reaches is a dashed level.

    Rows of the teacher itself and of many evaluations would squeeze the students.
    """
    undistilled = {str(method) for key, method in keys.items() if str(key).startswith(REFERENCE)} | {teacher}
    students = metrics[(metrics["nfe"] <= MOST) & ~metrics["method"].isin(undistilled)]
    first = [name for name in PRIMARY if name in metrics][:1]
    charts = []
    for name in (one for one in ("fid", *first) if one in metrics):
        column = described(name)
        points = [
            Point(str(row["method"]), row["nfe"], row[name], row[f"{name}_low"], row[f"{name}_high"])
            for _, row in students.iterrows()
        ]
        level = null if name == "fid" else teacher
        levels = [(str(row["method"]), row[name]) for _, row in metrics.iterrows() if row["method"] == level]
        title = f"{column.title} {ARROWS[column.better]} against evaluations per image, students of at most {MOST}"
        charts.append(scatter(points, "evaluations per image", column.title, title, levels))
    return "".join(charts)


def _loss_charts(losses: pd.DataFrame) -> str:
    """A chart per training; losses that are never there at the same steps have charts of their own."""
    charts = []
    for run, table in losses.groupby("run", sort=False):
        for part in _together(table):
            series = []
            for loss, rows in part.groupby("loss", sort=False):
                smooth = rows["value"].rolling(max(1, len(rows) // 20), min_periods=1).mean()
                every = max(1, len(rows) // 300)
                name = str(loss).removesuffix("_loss").replace("_", " ")
                series.append((name, rows["step"].iloc[::every].tolist(), smooth.iloc[::every].tolist()))
            steps = f"steps {part['step'].min()} to {part['step'].max()}"
            charts.append(lines(series, "step", "loss", f"Losses of {run}, {steps}, smoothed over a twentieth"))
    return "".join(charts)


def _together(table: pd.DataFrame) -> list[pd.DataFrame]:
    """The losses of a run, in groups whose ranges of steps overlap."""
    spans = table.groupby("loss", sort=False)["step"].agg(["min", "max"]).sort_values("min", kind="stable")
    groups: list[list[str]] = []
    last = -1
    for loss, first, end in spans.itertuples():
        if not groups or first > last:
            groups.append([])
        groups[-1].append(loss)
        last = max(last, end)
    return [table[table["loss"].isin(group)] for group in groups]


def _picture(image: Image.Image, text: str) -> str:
    buffer = io.BytesIO()
    image.quantize(256).save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    said = escape(text, quote=True)
    return (
        f'<figure class="wide" tabindex="0" role="region" aria-label="{said}"><img alt="{said}" width="{image.width}" '
        f'height="{image.height}" src="data:image/png;base64,{data}"><figcaption>{escape(text)}</figcaption></figure>'
    )


def _what_was_run(parameters: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    machine = f"{platform.machine()}, {os.cpu_count()} CPU cores, Python {platform.python_version()}"
    text = yaml.safe_dump(_plain(parameters), sort_keys=False, allow_unicode=True)
    return (
        f"<p>{date}; {escape(machine)}; {escape(versions)}. The commit and the versions that were "
        f"read are in <code>run.json</code> of the same run.</p><details><summary>All parameters</summary>"
        f"<pre>{escape(text)}</pre></details>"
    )


def _plain(value: Any) -> Any:
    """Parameters as YAML can write them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json"))
    return value if isinstance(value, str | int | float | bool | None) else str(value)
