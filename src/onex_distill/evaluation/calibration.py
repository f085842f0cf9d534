"""Variants of a metric on the teacher's images against the teacher's published row; no student is looked at."""

from typing import Any

import pandas as pd

from onex_distill.evaluation.measures import METRICS, measure
from onex_distill.evaluation.published import published_table
from onex_distill.evaluation.scored import ConfidenceParams, MetricParams, Scored
from onex_distill.parameters import Params


class Variants(Params):
    """A metric and the rows, ``network.row``, that may be what the published number was measured with."""

    metric: str
    rows: tuple[str, ...]


class CalibrationParams(Params):
    """The teacher whose published row is the measure, and the variants of each metric."""

    published: str
    variants: tuple[Variants, ...]


def calibrate(
    teacher: Scored, params: CalibrationParams, confidence: ConfidenceParams
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Every variant with its value, its distance to the published one, and the nearest of each metric.

    Returns:
        The table, and the choices by metric: the rows to name under ``metrics``. What is missing has a ``reason`` and
        is never chosen.

    Raises:
        ValueError: for no variants, and for a metric that is unknown or has no published value.
    """
    if not params.variants:
        raise ValueError("calibration.variants names no metric; choose the configuration of a real model with --env")
    published = published_table(params.published).set_index("method").loc["teacher"]
    rows = []
    for one in params.variants:
        if one.metric not in METRICS or pd.isna(published.get(one.metric)):
            raise ValueError(f"calibration: {one.metric!r} has no published value of the teacher; remove it")
        for row in one.rows:
            settings = MetricParams(features=row, neighbours=5)
            found = measure(one.metric, [teacher], teacher, settings, confidence).iloc[0]
            difference = found["value"] - published[one.metric]
            names = {"metric": one.metric, "variant": row, "published": published[one.metric]}
            values = {name: found[name] for name in ("value", "low", "high", "reason")}
            rows.append({**names, **values, "difference": difference})
    table = pd.DataFrame(rows)
    known = table[table["reason"] == ""]
    nearest = known.loc[known.groupby("metric", sort=False)["difference"].apply(lambda column: column.abs().idxmin())]
    table["nearest"] = table.index.isin(nearest.index)
    return table, dict(zip(nearest["metric"], nearest["variant"], strict=True))
