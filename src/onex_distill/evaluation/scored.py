"""What measuring starts from and gives: a method's features, a metric's settings, a value with its interval."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from onex_distill.evaluation.features import networks_of, note_of
from onex_distill.metrics import confidence as intervals
from onex_distill.metrics.dpg import Protocol
from onex_distill.parameters import Params, Seed
from onex_distill.storage.tensor_table import TensorTable


class MetricParams(Params):
    """Which rows a metric reads, as ``network.row`` (None: not measured), and neighbours where it has any.

    ``protocol`` is how DPG-Bench counts: as its published script, or without the script's mistakes.
    """

    features: str | None
    neighbours: PositiveInt
    protocol: Protocol = "corrected"


class ConfidenceParams(Params):
    """Level of intervals, draws of bootstrap and permutation, groups of prompts of the jackknife, and the seed."""

    level: float = Field(gt=0, lt=1)
    draws: PositiveInt
    groups: PositiveInt
    seed: Seed


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

    def note(self, row: str, name: str) -> Path:
        """A file that the network of a row has left beside its rows."""
        return note_of(self.table, row.partition(".")[0], name)

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


def mean_of(values: Tensor, prompts: Tensor, confidence: ConfidenceParams) -> Measurement:
    """The mean over prompts of values (N,) with the prompts (N,) that they belong to, and its bootstrap."""
    known, means = intervals.prompt_means(values, prompts)
    low, high = intervals.bootstrap_interval(means, confidence.level, confidence.draws, confidence.seed)
    return Measurement(float(means.mean()), low, high, "bootstrap", means.tolist(), known.tolist())


def jackknifed(
    value: float, without: Callable[[Tensor], float], groups: Tensor, confidence: ConfidenceParams
) -> Measurement:
    """A value with the interval of a jackknife over groups (N,); ``without`` takes the images kept, bool (N,).

    Args:
        value: The value of all images.
        without: The value of the images kept, bool (N,).
        groups: The group of every image (N,).
        confidence: Level, draws and groups of intervals.

    Returns:
        The measurement, its low end at least 0.
    """
    replicates = intervals.jackknife(without, groups)
    deviation = intervals.jackknife_deviation(replicates)
    low, high = intervals.t_interval(value, deviation, len(replicates), confidence.level)
    low = low if math.isnan(low) else max(0.0, low)  # of distances and entropies, which are not negative
    return Measurement(value, low, high, "jackknife", replicates.tolist(), [])


def given(reference: Scored | None) -> Scored:
    """The reference. Raises Unmeasured where there is none."""
    if reference is None:
        raise Unmeasured("no images are named to measure distances to")
    return reference


def another(scored: Scored, reference: Scored | None) -> Scored:
    """The reference. Raises Unmeasured where there is none, and for the reference itself."""
    if scored.key == given(reference).key:
        raise Unmeasured("distances are to these images")
    return given(reference)
