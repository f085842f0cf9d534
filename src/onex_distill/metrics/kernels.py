"""Distances between sets of images by kernels: KID and CMMD.

Shapes: N images, D features; features are float (N, D).
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from onex_distill.metrics.rows import check_pair

CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0


def kid(features: Tensor, reference: Tensor, seed: int, subsets: int = 100, subset_size: int = 1000) -> float:
    """The kernel Inception distance (Binkowski et al., 2018), the mean over subsets; see ``kid_subsets``.

    Args:
        features: Features (N, D).
        reference: Features (M, D).
        seed: Decides every draw.
        subsets: How many pairs of subsets are drawn.
        subset_size: Rows of a subset, at most.

    Returns:
        The mean of the squared discrepancies.

    Raises:
        ValueError: A set has fewer than two images, or features are not finite.
    """
    return float(kid_subsets(features, reference, seed, subsets, subset_size).mean())


def kid_subsets(features: Tensor, reference: Tensor, seed: int, subsets: int = 100, subset_size: int = 1000) -> Tensor:
    """Unbiased squared discrepancies (subsets,) under the cubic kernel, each between two random subsets.

    Subsets have ``subset_size`` rows, or as many as there are; ``seed`` decides them. Raises ValueError for fewer than
    two images and for features that are not finite.

    Args:
        features: Features (N, D).
        reference: Features (M, D).
        seed: Decides every draw.
        subsets: How many pairs of subsets are drawn.
        subset_size: Rows of a subset, at most.

    Returns:
        Squared discrepancies (subsets,).

    Raises:
        ValueError: A set has fewer than two images, or features are not finite.
    """
    features, reference = check_pair(features, reference, "KID", at_least=2)
    size = min(len(features), len(reference), subset_size)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(subsets):
        x, y = (rows[torch.randperm(len(rows), generator=generator)[:size]] for rows in (features, reference))
        inside = _cubic(x, x), _cubic(y, y)
        same = sum((kernel.sum() - kernel.trace() for kernel in inside), torch.zeros(())) / (size * (size - 1))
        found.append(same - 2 * _cubic(x, y).mean())
    return torch.stack(found)


def cmmd(features: Tensor, reference: Tensor, chunk: int = 1024) -> float:
    """CMMD (Jayasumana et al., 2024): 1000 times the squared discrepancy of embeddings under a Gaussian kernel.

    Rows are brought to length 1; the kernel is exp(-|x - y|^2 / (2 sigma^2)) with sigma 10, the estimate the biased one
    (V-statistic), as published. Memory is bounded by ``chunk`` rows against all. Raises ValueError for no images and
    for features that are not finite.
    """
    features, reference = check_pair(features, reference, "CMMD")
    features, reference = normalize(features, dim=1), normalize(reference, dim=1)
    terms = [
        _mean_gaussian(x, y, chunk) for x, y in ((features, features), (reference, reference), (features, reference))
    ]
    return CMMD_SCALE * (terms[0] + terms[1] - 2 * terms[2])


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mean_gaussian(x: Tensor, y: Tensor, chunk: int) -> float:
    """The kernel's mean over all pairs, less 1; rows have length 1, so that |x - y|^2 = 2 - 2 x y."""
    total = sum(float(torch.expm1((rows @ y.T - 1) / CMMD_SIGMA**2).sum()) for rows in x.split(chunk))
    return total / (len(x) * len(y))
