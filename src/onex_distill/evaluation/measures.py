"""Metrics of methods from their features, with intervals; one function per kind of metric.

A measure gives values by column. What it needs and does not find makes an empty cell with the reason.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import pandas as pd
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from onex_distill.evaluation.features import networks_of
from onex_distill.metrics import confidence as intervals
from onex_distill.metrics.categories import conditional_entropy, total_variation
from onex_distill.metrics.distances import frechet_distance, prompt_diversity
from onex_distill.metrics.frechet import frechet_at_infinity, trace_frechet_distance
from onex_distill.metrics.kernels import cmmd, kid
from onex_distill.metrics.manifolds import covered, density_coverage
from onex_distill.metrics.vendi import vendi_score
from onex_distill.parameters import Params
from onex_distill.storage.tensor_table import TensorTable


class MetricParams(Params):
    """Which rows a metric reads, as ``network.row`` (None: not measured), and neighbours where it has any."""

    features: str | None
    neighbours: PositiveInt


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


class ConfidenceParams(Params):
    """Level of intervals, draws of bootstrap and permutation, groups of prompts of the jackknife, and the seed."""

    level: float = Field(gt=0, lt=1)
    draws: PositiveInt
    groups: PositiveInt
    seed: int


class Unmeasured(Exception):
    """A cell that stays empty; the message is its reason."""


class Measurement(NamedTuple):
    """A value with its interval.

    ``units`` are what it is made from: means of ``prompts`` (bootstrap), or the value without each group (jackknife).
    """

    value: float
    low: float
    high: float
    interval: str
    units: list[float]
    prompts: list[int]


@dataclass(frozen=True)
class Scored:
    """One method's images as features: a table, or with ``places`` some of its rows."""

    key: str
    table: TensorTable
    places: tuple[int, ...] | None = None

    @cached_property
    def index(self) -> pd.DataFrame:
        """What is known of every image."""
        index = self.table.index
        return index if self.places is None else index.iloc[list(self.places)]

    @property
    def name(self) -> str:
        """As tables show it."""
        return str(self.index["method"].iloc[0]) if "method" in self.index else self.key

    @cached_property
    def prompts(self) -> Tensor:
        """The prompt of every image, (N,)."""
        return torch.tensor(self.index["prompt_row"].to_list())

    @cached_property
    def networks(self) -> dict[str, dict[str, Any]]:
        """What each network was."""
        return networks_of(self.table)

    def rows(self, name: str) -> Tensor:
        """A column. Raises Unmeasured when its network is missing, ValueError when there is no such row."""
        network, _, row = name.partition(".")
        described = self.networks.get(network)
        if described is None:
            raise ValueError(f"{name!r} names no network; known: {', '.join(self.networks) or 'none'}")
        reason = described.get("missing") or described["rows"].get(row)
        if reason:
            raise Unmeasured(reason)
        if name not in self.table.names:
            known = [column for column in self.table.names if column.startswith(f"{network}.")]
            raise ValueError(f"{network!r} has no row {row!r}; known: {', '.join(known)}")
        return self.table.read(name, range(len(self.table)) if self.places is None else self.places)

    def finite(self, name: str) -> Tensor:
        """A column without NaN. Raises ValueError when a row is not finite."""
        values = self.rows(name)
        wrong = ~values.reshape(len(values), -1).isfinite().all(1)
        if wrong.any():
            raise ValueError(
                f"{int(wrong.sum())} of {len(values)} rows {name!r} of {self.name} are not finite, the first is image "
                f"{int(wrong.nonzero()[0, 0])}; look at that image, or leave the network out"
            )
        return values

    def applicable(self, name: str) -> Tensor:
        """A column of what applies to all captions. Raises Unmeasured where it does not."""
        values = self.rows(name)
        wrong = values.reshape(len(values), -1).isnan().any(1)
        if wrong.any():
            text = self.index["text"].iloc[int(wrong.nonzero()[0, 0])]
            raise Unmeasured(f"it does not apply to {int(wrong.sum())} of {len(values)} captions, such as {text!r}")
        return values


Measure = Callable[[Scored, Scored | None, MetricParams, ConfidenceParams], dict[str, Measurement]]


def measure_mean(
    column: str, scored: Scored, reference: Scored | None, params: MetricParams, confidence: ConfidenceParams
) -> dict[str, Measurement]:
    """The mean of one number per image."""
    values = scored.applicable(str(params.features))
    return {column: _mean(values, scored.prompts, confidence)}


def measure_frechet(
    column: str, scored: Scored, reference: Scored | None, params: MetricParams, confidence: ConfidenceParams
) -> dict[str, Measurement]:
    """Frechet distance to the reference's features, by clean-fid; the interval is a delete-group jackknife's."""
    reference = _another(scored, reference)
    own, other = scored.finite(str(params.features)), reference.finite(str(params.features))
    try:
        value = frechet_distance(own, other)
    except ValueError as error:
        raise Unmeasured(str(error)) from error
    groups = intervals.prompt_groups(scored.prompts, confidence.groups, confidence.seed)

    def without(kept: Tensor) -> float:
        left = torch.isin(reference.prompts, scored.prompts[kept])
        return trace_frechet_distance(own[kept], other[left])

    return {column: _jackknifed(value, without, groups, confidence)}


def measure_blocks(
    column: str,
    distance: Callable[[Tensor, Tensor, int], float],
    scored: Scored,
    reference: Scored | None,
    params: MetricParams,
    confidence: ConfidenceParams,
) -> dict[str, Measurement]:
    """A kernel distance to the reference; its deviation is that of the distances between blocks of prompts."""
    reference = _another(scored, reference)
    own, other = scored.finite(str(params.features)), reference.finite(str(params.features))
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
    """The Frechet distance that endlessly many images would give; too few images leave it empty."""
    reference = _another(scored, reference)
    own, other = scored.finite(str(params.features)), reference.finite(str(params.features))
    try:
        value = frechet_at_infinity(own, other, confidence.seed)
    except ValueError as error:
        raise Unmeasured(str(error)) from error
    return {column: Measurement(value, math.nan, math.nan, "", [], [])}


def measure_density_coverage(
    scored: Scored, reference: Scored | None, params: MetricParams, confidence: ConfidenceParams
) -> dict[str, Measurement]:
    """Density and coverage of the reference's spheres."""
    reference = _given(reference)
    own, other = scored.finite(str(params.features)), reference.finite(str(params.features))
    groups = intervals.prompt_groups(scored.prompts, confidence.groups, confidence.seed)

    def part(place: int, kept: Tensor) -> float:
        left = torch.isin(reference.prompts, scored.prompts[kept])
        return density_coverage(own[kept], other[left], params.neighbours)[place]

    everything = torch.ones(len(own), dtype=torch.bool)
    try:
        return {
            column: _jackknifed(part(place, everything), partial(part, place), groups, confidence)
            for place, column in enumerate(("density", "coverage"))
        }
    except ValueError as error:
        raise Unmeasured(str(error)) from error


def measure_vendi(
    column: str, scored: Scored, reference: Scored | None, params: MetricParams, confidence: ConfidenceParams
) -> dict[str, Measurement]:
    """How many different images the set amounts to."""
    features = scored.finite(str(params.features))
    groups = intervals.prompt_groups(scored.prompts, confidence.groups, confidence.seed)
    return {column: _jackknifed(vendi_score(features), lambda kept: vendi_score(features[kept]), groups, confidence)}


def _kid(own: Tensor, other: Tensor, seed: int) -> float:
    return kid(own, other, seed)


def _cmmd(own: Tensor, other: Tensor, seed: int) -> float:
    return cmmd(own, other)


def measure_diversity(
    column: str, scored: Scored, reference: Scored | None, params: MetricParams, confidence: ConfidenceParams
) -> dict[str, Measurement]:
    """Mean pairwise distance between the images of one prompt."""
    features = scored.finite(str(params.features))
    try:
        prompts, distances = prompt_diversity(features, scored.prompts)
    except ValueError as error:
        raise Unmeasured(str(error)) from error
    return {column: _mean(distances, prompts, confidence)}


def measure_precision_recall(
    scored: Scored, reference: Scored | None, params: MetricParams, confidence: ConfidenceParams
) -> dict[str, Measurement]:
    """Share of images inside the reference's manifold, and of the reference's inside this one's."""
    reference = _given(reference)
    own, other = scored.finite(str(params.features)), reference.finite(str(params.features))
    if min(len(own), len(other)) <= params.neighbours:
        raise Unmeasured(f"{params.neighbours} neighbours need more than {params.neighbours} images")
    return {
        "precision": _mean(covered(own, other, params.neighbours), scored.prompts, confidence),
        "recall": _mean(covered(other, own, params.neighbours), reference.prompts, confidence),
    }


def measure_entropy(
    scored: Scored, reference: Scored | None, params: MetricParams, confidence: ConfidenceParams
) -> dict[str, Measurement]:
    """Conditional entropy of every attribute that captions leave free, in nats, and its distance to the renderer's."""
    network = str(params.features)
    scored.rows(f"{network}.features")
    suffix = "_expected"
    names = [name.removeprefix(f"{network}.") for name in scored.table.names if name.endswith(suffix)]
    groups = intervals.prompt_groups(scored.prompts, confidence.groups, confidence.seed)
    entropies, variations = {}, {}
    for name in sorted(one.removesuffix(suffix) for one in names):
        values, parents = scored.applicable(f"{network}.{name}").long().unbind(1)
        expected = scored.applicable(f"{network}.{name}{suffix}")
        entropy = partial(_entropy_of, values, parents, expected.shape[1])
        variation = partial(_variation_of, values, parents, expected)
        everything = torch.ones(len(values), dtype=torch.bool)
        entropies[f"entropy_{name}"] = _jackknifed(entropy(everything), entropy, groups, confidence)
        variations[f"total_variation_{name}"] = _jackknifed(variation(everything), variation, groups, confidence)
    return entropies | variations


class Metric(NamedTuple):
    """A metric of the table: its columns where they are known without measuring, and how it is measured."""

    columns: tuple[str, ...]
    measure: Measure


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
    for scored in sets if params.features else ():
        try:
            found, reason = known.measure(scored, reference, params, confidence), ""
        except Unmeasured as error:
            found, reason = dict.fromkeys(known.columns, EMPTY), str(error)
        described = identity_of(metric, scored, reference, params)
        for column, measurement in found.items():
            row = {"method": scored.name, "key": scored.key, "metric": column}
            rows.append({**row, **measurement._asdict(), "reason": reason, **described})
    return pd.DataFrame(rows, columns=COLUMNS)


EMPTY = Measurement(math.nan, math.nan, math.nan, "", [], [])
IDENTITY = ("version", "model", "recipe", "weights", "settings", "reference", "prompt_list", "images", "seeds")
COLUMNS = ["method", "key", "metric", *Measurement._fields, "reason", *IDENTITY]
VERSION = 1  # of our implementations; raised when a number of any of them changes


def identity_of(metric: str, scored: Scored, reference: Scored | None, params: MetricParams) -> dict[str, str]:
    """What must agree between rows before they are compared."""
    network = str(params.features).partition(".")[0]
    known: dict[str, str] = scored.networks.get(network, {}).get("identity", {})
    index = scored.index
    seeds = index["noise_seed"].dropna() if "noise_seed" in index else pd.Series(dtype="int64")
    weights = [f"{name}={value}" for name, value in sorted(known.items()) if name.endswith(("_revision", "_sha256"))]
    return {
        "version": f"{metric} {VERSION}",
        "model": known.get("model", network),
        "recipe": known.get("recipe", ""),
        "weights": " ".join(weights),
        "settings": f"{params.model_dump_json()} {known.get('settings', '')}",
        "reference": reference.name if reference else "",
        "prompt_list": _digest(index["text"]),
        "images": str(len(index)),
        "seeds": _digest(seeds) if len(seeds) else "",
    }


def _digest(column: pd.Series) -> str:
    """The first half of a SHA-256 over the values in their order."""
    return hashlib.sha256("\n".join(column.astype(str)).encode()).hexdigest()[:32]


def _mean(values: Tensor, prompts: Tensor, confidence: ConfidenceParams) -> Measurement:
    known, means = intervals.prompt_means(values, prompts)
    low, high = intervals.bootstrap_interval(means, confidence.level, confidence.draws, confidence.seed)
    return Measurement(float(means.mean()), low, high, "bootstrap", means.tolist(), known.tolist())


def _jackknifed(
    value: float, without: Callable[[Tensor], float], groups: Tensor, confidence: ConfidenceParams
) -> Measurement:
    replicates = intervals.jackknife(without, groups)
    deviation = intervals.jackknife_deviation(replicates)
    low, high = intervals.t_interval(value, deviation, len(replicates), confidence.level)
    low = low if math.isnan(low) else max(0.0, low)  # of distances and entropies, which are not negative
    return Measurement(value, low, high, "jackknife", replicates.tolist(), [])


def _entropy_of(values: Tensor, parents: Tensor, count: int, kept: Tensor) -> float:
    return conditional_entropy(values[kept], parents[kept], count)


def _variation_of(values: Tensor, parents: Tensor, expected: Tensor, kept: Tensor) -> float:
    return total_variation(values[kept], parents[kept], expected[kept])


def _given(reference: Scored | None) -> Scored:
    if reference is None:
        raise Unmeasured("no images are named to measure distances to")
    return reference


def _another(scored: Scored, reference: Scored | None) -> Scored:
    if scored.key == _given(reference).key:
        raise Unmeasured("distances are to these images")
    return _given(reference)
