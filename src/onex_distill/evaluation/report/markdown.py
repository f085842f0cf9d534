"""The metrics table as text."""

import pandas as pd

from onex_distill.evaluation.published import SOURCE, published_table
from onex_distill.evaluation.report.columns import ARROWS, described, number


def markdown(metrics: pd.DataFrame, measurements: pd.DataFrame, published: str | None) -> str:
    """Our rows with intervals, the reasons of empty cells, and apart from them the published rows."""
    parts = ["# Measured here", "", _table(metrics), ""]
    empty = measurements[measurements["reason"] != ""]
    for reason, rows in empty.groupby("reason", sort=False):
        names = ", ".join(dict.fromkeys(rows["metric"]))
        methods = ", ".join(dict.fromkeys(rows["method"]))
        parts.append(f"- no {names} for {methods}: {reason}")
    if published is not None:
        rows = published_table(published).drop(columns="source")
        parts += ["", f"# {SOURCE[0].upper()}{SOURCE[1:]}", "", _table(rows), ""]
        parts.append(
            "Its prompts and the settings of its scorers are not published: these numbers do not compare with ours."
        )
    return "\n".join(parts) + "\n"


def _table(table: pd.DataFrame) -> str:
    names = [name for name in table.columns if not name.endswith(("_low", "_high"))]
    heads = [name if name == "method" else f"{name} {ARROWS[described(name).better]}".strip() for name in names]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(names)]
    for _, row in table.iterrows():
        lines.append(f"| {' | '.join(_cell(row, name) for name in names)} |")
    return "\n".join(lines)


def _cell(row: pd.Series, name: str) -> str:
    if name == "method":
        return str(row[name])
    digits = described(name).digits
    low, high = (float(row.get(f"{name}_{end}", "nan")) for end in ("low", "high"))
    value = number(float("nan") if pd.isna(row[name]) else float(row[name]), digits)
    return value if pd.isna(low) else f"{value} [{number(low, digits)}, {number(high, digits)}]"
