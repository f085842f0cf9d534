"""How good the student is, in words: against the teacher, its target, the null row and the aims."""

from collections.abc import Sequence

import pandas as pd

from onex_distill.evaluation.params import ReportParams
from onex_distill.evaluation.report.columns import PRIMARY, SPREAD, described, number


def verdict(
    metrics: pd.DataFrame, teacher: str, null: str | None, target: str | None, params: ReportParams
) -> list[str]:
    """Sentences on the row ``params.student``; what was not measured is not spoken of.

    Args:
        metrics: the table, a row per method.
        teacher: the row that all are judged against.
        null: the row of the teacher with other noise, if it is there.
        target: the row of the teacher that the student should become, if it is there.
        params: the student's row and the aims.

    Returns:
        Plain sentences, the most important first. Raises ValueError when the student has no row.
    """
    rows = {str(row["method"]): row for _, row in metrics.iterrows()}
    if params.student not in rows:
        raise ValueError(f"report.student {params.student!r} is no row; rows: {', '.join(rows)}")
    student, reference = rows[params.student], rows[teacher]
    saved = reference["nfe"] / student["nfe"]
    sentences = [
        *_judgement(student, reference, params),
        f"{params.student} makes an image with {student['nfe']:.2f} evaluations of the network where the teacher needs "
        f"{reference['nfe']:.0f}: {saved:.1f} times fewer.",
    ]
    sentences += _primary(student, reference, params)
    sentences += _distance(student, rows.get(str(null)))
    sentences += _spread(student, reference, params)
    sentences += _target(student, rows.get(str(target)))
    return sentences


def _judgement(student: pd.Series, teacher: pd.Series, params: ReportParams) -> list[str]:
    """Whether the student is what was aimed at; nothing where nothing was aimed at or measured."""
    name, spread = _first(student, PRIMARY), _first(student, SPREAD)
    met = {}
    if name == "alignment" and params.alignment_points is not None:
        met["alignment"] = 100 * (teacher[name] - student[name]) <= params.alignment_points
    if spread is not None and params.diversity_ratio is not None:
        met["diversity"] = student[spread] / teacher[spread] >= params.diversity_ratio
    if not met:
        return []
    missed = [name for name, is_met in met.items() if not is_met]
    if not missed:
        return [f"{params.student} meets its aims for {' and '.join(met)}."]
    good = [name for name in met if name not in missed]
    rest = f", and meets that for {' and '.join(good)}" if good else ""
    aims = "aim" if len(missed) == 1 else "aims"
    return [f"{params.student} misses its {aims} for {' and '.join(missed)}{rest}."]


def _first(student: pd.Series, names: Sequence[str]) -> str | None:
    return next((name for name in names if pd.notna(student.get(name))), None)


def _primary(student: pd.Series, teacher: pd.Series, params: ReportParams) -> list[str]:
    name = _first(student, PRIMARY)
    if name is None:
        return []
    column = described(name)
    own, other = student[name], teacher[name]
    shown = f"{column.title} is {_with_interval(student, name)}, the teacher's {_with_interval(teacher, name)}"
    if name != "alignment" or params.alignment_points is None:
        return [f"{shown}."]
    below = 100 * (other - own)
    position = f"{below:.1f} points below" if below > 0 else f"{-below:.1f} points above"
    met = "meets" if below <= params.alignment_points else "misses"
    return [f"{shown}: {position} it, which {met} the aim of at most {params.alignment_points:g} points below."]


def _distance(student: pd.Series, null: pd.Series | None) -> list[str]:
    if pd.isna(student.get("fid")):
        return []
    own = f"The distance of its images to the teacher's, FID {_with_interval(student, 'fid')},"
    if null is None or pd.isna(null["fid"]) or null["fid"] <= 0:
        return [f"{own} has no floor to be judged by: there is no row of the teacher with other noise."]
    times = student["fid"] / null["fid"]
    return [f"{own} is {times:.1f} times the floor: the teacher with other noise is at {_with_interval(null, 'fid')}."]


def _spread(student: pd.Series, teacher: pd.Series, params: ReportParams) -> list[str]:
    name = _first(student, SPREAD)
    if name is None:
        return []
    ratio = student[name] / teacher[name]
    text = f"{described(name).title} within captions is {ratio:.2f} times the teacher's"
    if params.diversity_ratio is None:
        return [f"{text}."]
    met = "meets" if ratio >= params.diversity_ratio else "misses"
    return [f"{text}, which {met} the aim of {params.diversity_ratio:g}."]


def _target(student: pd.Series, target: pd.Series | None) -> list[str]:
    """What the student keeps of the teacher that stage one shows it."""
    if target is None:
        return []
    name, spread = _first(student, PRIMARY), _first(student, SPREAD)
    parts = []
    if name is not None:
        digits = described(name).digits
        own, other = number(student[name], digits), number(target[name], digits)
        parts.append(f"{described(name).title.lower()} is {own} where the target's is {other}")
    if spread is not None:
        parts.append(f"{100 * student[spread] / target[spread]:.1f} % of its {described(spread).title.lower()} is kept")
    if not parts:
        return []
    return [f"Its target is {target['method']}, the teacher guided as in stage one: {', and '.join(parts)}."]


def _with_interval(row: pd.Series, name: str) -> str:
    digits = described(name).digits
    low, high = row.get(f"{name}_low", float("nan")), row.get(f"{name}_high", float("nan"))
    value = number(row[name], digits)
    return value if pd.isna(low) else f"{value} ({number(low, digits)} to {number(high, digits)})"
