"""Measurements as tables: one row per method, one per comparison, one per prompt."""

import itertools
import math

import pandas as pd
import torch

from onex_distill.evaluation.identity import IDENTITY
from onex_distill.evaluation.scored import ConfidenceParams
from onex_distill.metrics import confidence as intervals

COMPARISON = ["metric", "method_a", "method_b", "difference", "low", "high", "p_value", "p_holm", "test", "reason"]
FIRST = ("fid", "alignment", "diversity", "precision", "recall")


def wide_table(costs: pd.DataFrame, measurements: pd.DataFrame) -> pd.DataFrame:
    """A row per method: its costs, then every metric with its ``_low`` and ``_high``."""
    table = costs
    found = measurements["metric"].unique().tolist()
    for metric in [*(name for name in FIRST if name in found), *(name for name in found if name not in FIRST)]:
        rows = measurements[measurements["metric"] == metric]
        values = rows[["method", "value", "low", "high"]]
        names = {"value": metric, "low": f"{metric}_low", "high": f"{metric}_high"}
        table = table.merge(values.rename(columns=names), on="method", how="left", validate="one_to_one")
    return table


def difference_of_identity(first: pd.Series, second: pd.Series) -> str:
    """The first part of their identities in which two measurements differ, empty where they may be compared."""
    for name in IDENTITY:
        if first[name] != second[name]:
            return f"{name} differs: {first[name]!r} and {second[name]!r}"
    return ""


def require_same_identity(first: pd.Series, second: pd.Series) -> None:
    """Raise ValueError naming what differs between the identities of two measurements."""
    reason = difference_of_identity(first, second)
    if reason:
        raise ValueError(f"{first['metric']} of {first['method']} and {second['method']} do not compare; {reason}")


def comparison_table(measurements: pd.DataFrame, confidence: ConfidenceParams) -> pd.DataFrame:
    """Differences a - b between all methods, metric by metric, on shared prompts and noise.

    Means over prompts: paired bootstrap and sign-flip permutation. Distances and entropies: jackknife over the same
    groups of prompts, and Student's t. ``p_holm`` is adjusted over the metrics of a pair. What does not compare has a
    ``reason``.
    """
    rows = []
    for metric, table in measurements.groupby("metric", sort=False):
        for first, second in itertools.combinations([row for _, row in table.iterrows()], 2):
            names = {"metric": metric, "method_a": first["method"], "method_b": second["method"]}
            rows.append(names | _compare(first, second, confidence))
    result = pd.DataFrame(rows, columns=COMPARISON)
    for _, places in result.groupby(["method_a", "method_b"], sort=False).groups.items():
        result.loc[places, "p_holm"] = intervals.holm(result.loc[places, "p_value"].astype(float).tolist())
    return result


def prompt_table(measurements: pd.DataFrame, texts: pd.Series) -> pd.DataFrame:
    """A row per prompt and method with every metric that is a mean over prompts; ``texts`` is by prompt row."""
    means = measurements[(measurements["interval"] == "bootstrap") & (measurements["metric"] != "recall")]
    parts = [
        pd.DataFrame(
            {"method": row["method"], "prompt_row": row["prompts"], "metric": row["metric"], "value": row["units"]}
        )
        for _, row in means.iterrows()
    ]
    if not parts:
        return pd.DataFrame(columns=["prompt_row", "text", "method"])
    wide = pd.concat(parts).pivot_table(index=["prompt_row", "method"], columns="metric", values="value", sort=False)
    table = wide.reset_index()
    table.insert(1, "text", table["prompt_row"].map(texts))
    return table.rename_axis(columns=None)


def _compare(first: pd.Series, second: pd.Series, confidence: ConfidenceParams) -> dict[str, object]:
    nothing = {"difference": math.nan, "low": math.nan, "high": math.nan, "p_value": math.nan, "p_holm": math.nan}
    reason = first["reason"] or second["reason"] or difference_of_identity(first, second)
    if reason or list(first["prompts"]) != list(second["prompts"]):
        return {**nothing, "test": "", "reason": reason or "measured on different prompts"}
    own, other = (torch.tensor(list(row["units"]), dtype=torch.float64) for row in (first, second))
    difference = float(first["value"] - second["value"])
    paired = own - other
    if first["interval"] == "bootstrap":
        low, high = intervals.bootstrap_interval(paired, confidence.level, confidence.draws, confidence.seed)
        p_value, test = intervals.sign_flip_p_value(paired, confidence.draws, confidence.seed), "sign-flip permutation"
    else:
        deviation = intervals.jackknife_deviation(paired)
        low, high = intervals.t_interval(difference, deviation, len(paired), confidence.level)
        p_value, test = intervals.t_p_value(difference, deviation, len(paired)), "jackknife t"
    values = {"difference": difference, "low": low, "high": high, "p_value": p_value}
    return {**nothing, **values, "test": test, "reason": ""}
