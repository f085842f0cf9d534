"""The metrics table as a terminal shows it at the end of a run."""

from itertools import chain

import pandas as pd

from onex_distill.evaluation.report.columns import ARROWS, PRIMARY, SPREAD, described, number

OTHERS = ("precision", "recall")
WIDTH = 98  # letters of a line


def summary(metrics: pd.DataFrame) -> str:
    """Evaluations, FID, the first score, the first diversity and coverage with 95 % intervals, as many as fit a line.

    The first row is the one that distances are to.
    """
    firsts = [
        [name for name in group if name in metrics and metrics[name].notna().any()][:1] for group in (PRIMARY, SPREAD)
    ]
    names = [name for name in ("nfe", "fid", *chain(*firsts), *OTHERS) if name in metrics]
    shown = pd.DataFrame({_head(name): [_cell(row, name) for _, row in metrics.iterrows()] for name in names})
    shown.insert(0, "", metrics["method"].astype(str).to_numpy())
    while len(shown.columns) > 2 and len(_lines(shown)[0]) > WIDTH:
        shown = shown.iloc[:, :-1]
    reference = metrics["method"].iloc[0]
    title = f"Metrics with 95 % intervals; distances are to the images of {reference}, of the same captions and noise:"
    return "\n".join([title, *_lines(shown)])


def _lines(table: pd.DataFrame) -> list[str]:
    """Left-aligned columns."""
    widths = [max(len(str(name)), *(len(cell) for cell in table[name])) for name in table]
    rows = [list(table.columns), *table.itertuples(index=False)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _head(name: str) -> str:
    column = described(name)
    if name == "nfe":
        column = column._replace(title="NFE")
    return f"{column.title} {ARROWS[column.better]}".strip()


def _cell(row: pd.Series, name: str) -> str:
    digits = described(name).digits
    value, low, high = (float(row.get(key, "nan")) for key in (name, f"{name}_low", f"{name}_high"))
    interval = "" if pd.isna(low) else f" [{number(low, digits)}, {number(high, digits)}]"
    return number(value, digits) + interval
