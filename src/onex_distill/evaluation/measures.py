"""Metrics of methods from their features, with intervals; one function per kind of metric.

A measure gives values by column. What it needs and does not find makes an empty cell with the reason.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from onex_distill.evaluation.entropies import measure_entropy
from onex_distill.evaluation.identity import IDENTITY, identity_of
from onex_distill.evaluation.judged import measure_dpg, measure_geneval
from onex_distill.evaluation.scored import (
    ConfidenceParams,
    Measurement,
    MetricParams,
    Scored,
    Unmeasured,
    another,
    given,
    jackknifed,
    mean_of,
)
from onex_distill.metrics import confidence as intervals
from onex_distill.metrics.distances import frechet_distance, prompt_diversity
from onex_distill.metrics.frechet import frechet_at_infinity, trace_frechet_distance
from onex_distill.metrics.kernels import cmmd, kid
from onex_distill.metrics.manifolds import covered, density_coverage
from onex_distill.metrics.vendi import vendi_score
from onex_distill.parameters import Params


class MetricsParams(Params):
    """Every metric of the table by its name."""

    fid: MetricParams
    patch_fid: MetricParams
    dinov2_distance: MetricParams
    fd_infinity: MetricParams
    kid: MetricParams
    cmmd: MetricParams
    alignment: MetricParams
    clip_score: MetricParams
    aesthetic: MetricParams
    pick_score: MetricParams
    image_reward: MetricParams
    hps: MetricParams
    diversity: MetricParams
    lpips_diversity: MetricParams
    precision_recall: MetricParams
    density_coverage: MetricParams
    vendi: MetricParams
    entropy: MetricParams
    saturation: MetricParams
    contrast: MetricParams
    dpg: MetricParams
    geneval_style: MetricParams


Measure = Callable[[Scored, Scored | None, MetricParams, ConfidenceParams], dict[str, Measurement]]


def measure_mean(
    column: str, scored: Scored, reference: Scored | None, params: MetricParams, confidence: ConfidenceParams
) -> dict[str, Measurement]:
    """The mean of one number per image.

    Args:
        column: The name of the metric's column.
        scored: The set that is measured.
        reference: Not read.
        params: The settings, validated.
        confidence: Level, draws and groups of intervals.

    Returns:
        The measurement by column.
    """
    values = scored.applicable(str(params.features))
    return {column: mean_of(values, scored.prompts, confidence)}


def compared(scored: Scored, reference: Scored | None, params: MetricParams) -> tuple[Scored, Tensor, Tensor]:
    """The set that another is compared with, and the features of both, (N, D) and (M, D)."""
    beside = another(scored, reference)
    return beside, scored.finite(str(params.features)), beside.finite(str(params.features))


def measure_frechet(
    column: str, scored: Scored, reference: Scored | None, params: MetricParams, confidence: ConfidenceParams
) -> dict[str, Measurement]:
    """Frechet distance to the reference's features, by clean-fid; the interval is a delete-group jackknife's.

    Args:
        column: The name of the metric's column.
        scored: The set that is measured.
        reference: The set that it is compared with.
        params: The settings, validated.
        confidence: Level, draws and groups of intervals.

    Returns:
        The measurement by column.

    Raises:
        Unmeasured: The distance does not exist for these sets.
    """
    reference, own, other = compared(scored, reference, params)
    try:
        value = frechet_distance(own, other)
    except ValueError as error:
        raise Unmeasured(str(error)) from error
    groups = intervals.prompt_groups(scored.prompts, confidence.groups, confidence.seed)

    def without(kept: Tensor) -> float:
        left = torch.isin(reference.prompts, scored.prompts[kept])
        return trace_frechet_distance(own[kept], other[left])

    return {column: jackknifed(value, without, groups, confidence)}


def measure_blocks(
    column: str,
    distance: Callable[[Tensor, Tensor, int], float],
    scored: Scored,
    reference: Scored | None,
    params: MetricParams,
    confidence: ConfidenceParams,
) -> dict[str, Measurement]:
    """A kernel distance to the reference; its deviation is that of the distances between blocks of prompts.

    Args:
        column: The name of the metric's column.
        distance: The distance between two sets of features, and a seed.
        scored: The set that is measured.
        reference: The set that it is compared with.
        params: The settings, validated.
        confidence: Level, draws and groups of intervals.

    Returns:
        The measurement by column.
    """
    reference, own, other = compared(scored, reference, params)
    value = distance(own, other, confidence.seed)
    groups = intervals.prompt_groups(scored.prompts, confidence.groups, confidence.seed)
    blocks = []
    for group in groups.unique():
        chosen = groups == group
        beside = torch.isin(reference.prompts, scored.prompts[chosen])
        if min(int(chosen.sum()), int(beside.sum())) > 1:
            blocks.append(distance(own[chosen], other[beside], confidence.seed))
    units = torch.tensor(blocks, dtype=torch.float64)
    low, high = intervals.t_interval(value, intervals.block_deviation(units), len(units), confidence.level)
    return {column: Measurement(value, low, high, "blocks", units.tolist(), [])}


def measure_infinity(
    column: str, scored: Scored, reference: Scored | None, params: MetricParams, confidence: ConfidenceParams
) -> dict[str, Measurement]:
    """The Frechet distance that endlessly many images would give; too few images leave it empty.

    The interval is a delete-group jackknife's of the whole extrapolation.

    Args:
        column: The name of the metric's column.
        scored: The set that is measured.
        reference: The set that it is compared with.
        params: The settings, validated.
        confidence: Level, draws and groups of intervals.

    Returns:
        The measurement by column.

    Raises:
        Unmeasured: There are too few images.
    """
    reference, own, other = compared(scored, reference, params)
    groups = intervals.prompt_groups(scored.prompts, confidence.groups, confidence.seed)

    def without(kept: Tensor) -> float:
        left = torch.isin(reference.prompts, scored.prompts[kept])
        return frechet_at_infinity(own[kept], other[left], confidence.seed)

    try:
        value = frechet_at_infinity(own, other, confidence.seed)
        return {column: jackknifed(value, without, groups, confidence)}
    except ValueError as error:
        raise Unmeasured(str(error)) from error


def measure_density_coverage(
    scored: Scored, reference: Scored | None, params: MetricParams, confidence: ConfidenceParams
) -> dict[str, Measurement]:
    """Density and coverage of the reference's spheres.

    Args:
        scored: The set that is measured.
        reference: The set that it is compared with.
        params: The settings, validated.
        confidence: Level, draws and groups of intervals.

    Returns:
        Measurements by column.

    Raises:
        Unmeasured: There are too few images.
    """
    reference = given(reference)
    own, other = scored.finite(str(params.features)), reference.finite(str(params.features))
    groups = intervals.prompt_groups(scored.prompts, confidence.groups, confidence.seed)

    def part(place: int, kept: Tensor) -> float:
        left = torch.isin(reference.prompts, scored.prompts[kept])
        return density_coverage(own[kept], other[left], params.neighbours)[place]

    everything = torch.ones(len(own), dtype=torch.bool)
    try:
        return {
            column: jackknifed(part(place, everything), partial(part, place), groups, confidence)
            for place, column in enumerate(("density", "coverage"))
        }
    except ValueError as error:
        raise Unmeasured(str(error)) from error


def measure_vendi(
    column: str, scored: Scored, reference: Scored | None, params: MetricParams, confidence: ConfidenceParams
) -> dict[str, Measurement]:
    """How many different images the set amounts to.

    Args:
        column: The name of the metric's column.
        scored: The set that is measured.
        reference: Not read.
        params: The settings, validated.
        confidence: Level, draws and groups of intervals.

    Returns:
        The measurement by column.
    """
    features = scored.finite(str(params.features))
    groups = intervals.prompt_groups(scored.prompts, confidence.groups, confidence.seed)
    return {column: jackknifed(vendi_score(features), lambda kept: vendi_score(features[kept]), groups, confidence)}


def _kid(own: Tensor, other: Tensor, seed: int) -> float:
    return kid(own, other, seed)


def _cmmd(own: Tensor, other: Tensor, _seed: int) -> float:
    return cmmd(own, other)


def measure_diversity(
    column: str, scored: Scored, reference: Scored | None, params: MetricParams, confidence: ConfidenceParams
) -> dict[str, Measurement]:
    """Mean pairwise distance between the images of one prompt.

    Args:
        column: The name of the metric's column.
        scored: The set that is measured.
        reference: Not read.
        params: The settings, validated.
        confidence: Level, draws and groups of intervals.

    Returns:
        The measurement by column.

    Raises:
        Unmeasured: No prompt has two images.
    """
    features = scored.finite(str(params.features))
    try:
        prompts, distances = prompt_diversity(features, scored.prompts)
    except ValueError as error:
        raise Unmeasured(str(error)) from error
    return {column: mean_of(distances, prompts, confidence)}


def measure_precision_recall(
    scored: Scored, reference: Scored | None, params: MetricParams, confidence: ConfidenceParams
) -> dict[str, Measurement]:
    """Share of images inside the reference's manifold, and of the reference's inside this one's.

    Args:
        scored: The set that is measured.
        reference: The set that it is compared with.
        params: The settings, validated.
        confidence: Level, draws and groups of intervals.

    Returns:
        Measurements by column.

    Raises:
        Unmeasured: A set has no k-th neighbour.
    """
    reference = given(reference)
    own, other = scored.finite(str(params.features)), reference.finite(str(params.features))
    if min(len(own), len(other)) <= params.neighbours:
        raise Unmeasured(f"{params.neighbours} neighbours need more than {params.neighbours} images")
    return {
        "precision": mean_of(covered(own, other, params.neighbours), scored.prompts, confidence),
        "recall": mean_of(covered(other, own, params.neighbours), reference.prompts, confidence),
    }


class Metric(NamedTuple):
    """A metric of the table: its columns where they are known without measuring, and how it is measured.

    The columns of a ``judged`` metric end with the name of its judge, since another judge is another metric.
    """

    columns: tuple[str, ...]
    measure: Measure
    judged: bool = False


ENTROPY = tuple(
    f"{kind}_{name}" for kind in ("entropy", "total_variation") for name in ("background", "position", "size")
)


def _single(name: str, measure: Callable[..., dict[str, Measurement]]) -> Metric:
    return Metric((name,), partial(measure, name))


METRICS: Mapping[str, Metric] = {
    "fid": _single("fid", measure_frechet),
    "patch_fid": _single("patch_fid", measure_frechet),
    "dinov2_distance": _single("dinov2_distance", measure_frechet),
    "fd_infinity": _single("fd_infinity", measure_infinity),
    "kid": Metric(("kid",), partial(measure_blocks, "kid", _kid)),
    "cmmd": Metric(("cmmd",), partial(measure_blocks, "cmmd", _cmmd)),
    "alignment": _single("alignment", measure_mean),
    "clip_score": _single("clip_score", measure_mean),
    "aesthetic": _single("aesthetic", measure_mean),
    "pick_score": _single("pick_score", measure_mean),
    "image_reward": _single("image_reward", measure_mean),
    "hps": _single("hps", measure_mean),
    "diversity": _single("diversity", measure_diversity),
    "lpips_diversity": _single("lpips_diversity", measure_mean),
    "precision_recall": Metric(("precision", "recall"), measure_precision_recall),
    "density_coverage": Metric(("density", "coverage"), measure_density_coverage),
    "vendi": _single("vendi", measure_vendi),
    "entropy": Metric(ENTROPY, measure_entropy),
    "saturation": _single("saturation", measure_mean),
    "contrast": _single("contrast", measure_mean),
    "dpg": Metric(("dpg",), measure_dpg, judged=True),
    "geneval_style": Metric(("geneval_style",), measure_geneval, judged=True),
}


def measure(
    metric: str, sets: Sequence[Scored], reference: Scored | None, params: MetricParams, confidence: ConfidenceParams
) -> pd.DataFrame:
    """A row per set and column of a metric; empty cells have a ``reason``.

    Args:
        metric: one of ``METRICS``.
        sets: the features of every method.
        reference: what distances are to, if there is such a set.
        params: rows and settings; without rows the table is empty.
        confidence: of intervals.

    Returns:
        A table with ``COLUMNS``.

    Raises:
        ValueError: for rows that no network gives, or that are not finite.
    """
    known, rows = METRICS[metric], []
    judge = f"_by_{str(params.features).partition('.')[0]}" if known.judged else ""
    for scored in sets if params.features else ():
        try:
            found, reason = known.measure(scored, reference, params, confidence), ""
        except Unmeasured as error:
            found, reason = dict.fromkeys(known.columns, EMPTY), str(error)
        described = identity_of(metric, scored, reference, params)
        for column, measurement in found.items():
            row = {"method": scored.name, "key": scored.key, "metric": column + judge}
            rows.append({**row, **measurement._asdict(), "reason": reason, **described})
    return pd.DataFrame(rows, columns=COLUMNS)


EMPTY = Measurement(math.nan, math.nan, math.nan, "", [], [])
COLUMNS = ["method", "key", "metric", *Measurement._fields, "reason", *IDENTITY]
