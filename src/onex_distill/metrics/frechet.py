"""The Frechet distance from eigenvalues, and its extrapolation to endlessly many images.

Shapes: N images, D features; features are float (N, D).
"""

import torch
from torch import Tensor

from onex_distill.metrics.rows import check_pair


def trace_frechet_distance(features: Tensor, reference: Tensor) -> float:
    """The Frechet distance between Gaussians fitted to two sets, without a matrix square root of their product.

    tr((S1 S2)^1/2) is the sum of the roots of the eigenvalues of S1^1/2 S2 S1^1/2, which is symmetric: faster at 2048
    features than clean-fid's square root (``distances.frechet_distance``), and defined for sets of any size.
    Raises ValueError for fewer than two images and for features that are not finite.
    """
    features, reference = check_pair(features, reference, "the Frechet distance", at_least=2)
    return gaussian_distance(*moments(features), *moments(reference))


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and unbiased covariance (D, D) in float64."""
    features = features.double()
    return features.mean(0), features.T.cov().reshape(features.shape[1], -1)


def gaussian_distance(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> float:
    """The Frechet distance between two Gaussians (Dowson and Landau, 1982): means (D,), covariances (D, D).

    Args:
        mean: Shape (D,).
        covariance: Shape (D, D).
        other_mean: Shape (D,).
        other_covariance: Shape (D, D).

    Returns:
        The squared distance.
    """
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    crossed = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp_min(0).sqrt().sum()
    trace = covariance.trace() + other_covariance.trace() - 2 * crossed
    return float((mean - other_mean).square().sum() + trace)


def frechet_at_infinity(features: Tensor, reference: Tensor, seed: int, points: int = 15, smallest: int = 0) -> float:
    """The Frechet distance that endlessly many images would give (Chong and Forsyth, 2020).

    The distance of n images is biased by a term in 1/n: it is measured for ``points`` sizes between ``smallest`` and N,
    each on a random subset, and a line in 1/n is read at 0.

    Args:
        features: rows (N, D) of the images that are scored.
        reference: rows (M, D) that they are compared with, all of them at each size.
        seed: decides the subsets.
        points: how many sizes.
        smallest: the smallest size; 0 takes a tenth of N, as the published settings do (5,000 of 50,000).

    Returns:
        The value of the line at 1/n = 0.

    Raises:
        ValueError: for fewer than 20 images, for features that are not finite, and for a smallest size beyond N.
    """
    features, reference = check_pair(features, reference, "FD-infinity", at_least=20)
    smallest = smallest or max(2, len(features) // 10)
    if not 2 <= smallest < len(features) or points < 2:
        raise ValueError(
            f"FD-infinity cannot fit a line from {smallest} to {len(features)} images with {points} points; give two "
            "or more points and a smallest size below the number of images"
        )
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.linspace(smallest, len(features), points).round().long()
    mean, covariance = moments(reference)
    distances = [
        gaussian_distance(
            *moments(features[torch.randperm(len(features), generator=generator)[:size]]), mean, covariance
        )
        for size in sizes
    ]
    ones = torch.ones(points, dtype=torch.float64)
    line = torch.stack([1 / sizes.double(), ones], 1)
    return float(torch.linalg.lstsq(line, torch.tensor(distances, dtype=torch.float64)[:, None]).solution[1])
