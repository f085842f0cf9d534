"""Intervals and tests whose unit is the prompt: images of one prompt are not independent.

Shapes: N images, P prompts, G groups of prompts; values are float64.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor


class Interval(NamedTuple):
    """Lower and upper end."""

    low: float
    high: float


def prompt_means(values: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """Prompts (P,), ascending, and the mean of the values (N,) of each, (P,) float64."""
    known, places = prompts.unique(return_inverse=True)
    sums = torch.zeros(len(known), dtype=torch.float64).index_add_(0, places, values.double())
    return known, sums / torch.bincount(places, minlength=len(known))


def bootstrap_interval(means: Tensor, level: float, draws: int, seed: int) -> Interval:
    """Percentile interval of the mean over prompts (P,), by drawing prompts with replacement (Efron 1979).

    One prompt gives no interval: both ends are NaN.

    Args:
        means: A mean per prompt (P,).
        level: Share of intervals that hold the true value, such as 0.95.
        draws: How often prompts are drawn.
        seed: Decides every draw.

    Returns:
        Both ends.
    """
    if len(means) < 2:
        return Interval(math.nan, math.nan)
    random = np.random.default_rng(seed)
    counts = random.multinomial(len(means), np.full(len(means), 1 / len(means)), size=draws)
    drawn = counts @ means.double().numpy() / len(means)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def sign_flip_p_value(differences: Tensor, draws: int, seed: int) -> float:
    """Two-sided p-value of a mean difference over prompts (P,) under random signs; 1 where all differences are zero.

    The observed signs count as one draw, so that the test keeps its level (Phipson and Smyth 2010).
    """
    values = differences.double().numpy()
    observed = abs(values.sum())
    random = np.random.default_rng(seed)
    signs = random.integers(0, 2, size=(draws, len(values)), dtype=np.int8) * 2 - 1
    flipped = np.abs(signs @ values)
    return float((1 + (flipped >= observed * (1 - 1e-12)).sum()) / (draws + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979), in the order given; NaN stays and is not counted."""
    p = np.asarray(p_values, dtype=float)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted, largest = p.copy(), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, (len(order) - rank) * p[place])
        adjusted[place] = min(1.0, largest)
    return adjusted.tolist()


def prompt_groups(prompts: Tensor, count: int, seed: int) -> Tensor:
    """Every image's group (N,), 0 to count - 1: prompts are dealt out at random, so that no prompt is split."""
    known, places = prompts.unique(return_inverse=True)
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))
    dealt = torch.empty(len(known), dtype=torch.int64)
    dealt[order] = torch.arange(len(known)) % min(count, len(known))
    return dealt[places]


def jackknife(statistic: Callable[[Tensor], float], groups: Tensor) -> Tensor:
    """The statistic without each group in turn, (G,); it takes the kept images as bool (N,)."""
    return torch.tensor([statistic(groups != group) for group in groups.unique().tolist()], dtype=torch.float64)


def jackknife_deviation(replicates: Tensor) -> float:
    """Standard error of a delete-group jackknife, sqrt((G - 1) / G sum (r - mean r)^2) (Kott 2001)."""
    count = len(replicates)
    spread = (replicates - replicates.mean()).square().sum()
    return math.sqrt((count - 1) / count * float(spread)) if count > 1 else math.nan


def block_deviation(blocks: Tensor) -> float:
    """Standard error of a mean of values of disjoint blocks, (G,)."""
    return float(blocks.std() / math.sqrt(len(blocks))) if len(blocks) > 1 else math.nan


def t_interval(value: float, deviation: float, groups: int, level: float) -> Interval:
    """Interval around a value by Student's t with groups - 1 degrees of freedom.

    Args:
        value: The middle.
        deviation: Its standard deviation.
        groups: How many groups gave the deviation.
        level: Share of intervals that hold the true value, such as 0.95.

    Returns:
        Both ends; NaN for fewer than two groups.
    """
    if groups < 2:
        return Interval(math.nan, math.nan)
    reach = float(stats.t.ppf((1 + level) / 2, groups - 1)) * deviation
    return Interval(value - reach, value + reach)


def t_p_value(value: float, deviation: float, groups: int) -> float:
    """Two-sided p-value of a value against zero; 1 where value and deviation are both zero."""
    if groups < 2 or math.isnan(deviation):
        return math.nan
    if deviation == 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * stats.t.sf(abs(value) / deviation, groups - 1))
