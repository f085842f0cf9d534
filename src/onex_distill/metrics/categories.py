"""Distributions of what is read from images as categories, given a category of their prompt.

Shapes: N images, V values; categories are int64 (N,).
"""

import torch
from torch import Tensor


def conditional_histogram(values: Tensor, parents: Tensor, count: int) -> Tensor:
    """p(value | parent), (parents, count) float64; a row of a parent that does not occur is zero."""
    histogram = torch.zeros(int(parents.max()) + 1, count, dtype=torch.float64)
    histogram.index_put_((parents, values), torch.ones(len(values), dtype=torch.float64), accumulate=True)
    return histogram / histogram.sum(1, keepdim=True).clamp_min(1)


def conditional_entropy(values: Tensor, parents: Tensor, count: int) -> float:
    """H(value | parent) in nats."""
    histogram = conditional_histogram(values, parents, count)
    share = torch.bincount(parents, minlength=len(histogram)) / len(parents)
    return float((share * -(histogram * histogram.clamp_min(1e-12).log()).sum(1)).sum())


def total_variation(values: Tensor, parents: Tensor, expected: Tensor) -> float:
    """Mean over parents of half the sum of |p(value | parent) - expected|; ``expected`` is (N, V), a row per image."""
    histogram = conditional_histogram(values, parents, expected.shape[1])
    known, first = parents.unique(return_inverse=True)
    wanted = torch.stack([expected[first == number][0] for number in range(len(known))]).double()
    return float((histogram[known] - wanted).abs().sum(1).mean() / 2)
