"""Entropies of the attributes that captions leave free."""

from functools import partial

import torch
from torch import Tensor

from onex_distill.evaluation.scored import ConfidenceParams, Measurement, MetricParams, Scored, jackknifed
from onex_distill.metrics import confidence as intervals
from onex_distill.metrics.categories import conditional_entropy, total_variation


def measure_entropy(
    scored: Scored, reference: Scored | None, params: MetricParams, confidence: ConfidenceParams
) -> dict[str, Measurement]:
    """Conditional entropy of every attribute that captions leave free, in nats, and its distance to the renderer's.

    Args:
        scored: The set that is measured.
        reference: Not read.
        params: The settings, validated.
        confidence: Level, draws and groups of intervals.

    Returns:
        Measurements by column, in nats and as total variation.
    """
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
        entropies[f"entropy_{name}"] = jackknifed(entropy(everything), entropy, groups, confidence)
        variations[f"total_variation_{name}"] = jackknifed(variation(everything), variation, groups, confidence)
    return entropies | variations


def _entropy_of(values: Tensor, parents: Tensor, count: int, kept: Tensor) -> float:
    return conditional_entropy(values[kept], parents[kept], count)


def _variation_of(values: Tensor, parents: Tensor, expected: Tensor, kept: Tensor) -> float:
    return total_variation(values[kept], parents[kept], expected[kept])
