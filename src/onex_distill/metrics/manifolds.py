"""Precision, recall, density and coverage, with distances in chunks so that memory stays bounded.

Shapes: N images, D features; features are float (N, D).
"""

import torch
from torch import Tensor

from onex_distill.metrics.rows import check_pair

ROUNDING = 1e-12


def precision_recall(features: Tensor, reference: Tensor, neighbours: int, chunk: int = 1024) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al., 2019, eq. 1-3) with k nearest neighbours.

    Precision: share of ``features`` inside the reference manifold; recall: share of ``reference`` inside the other.
    Raises ValueError when a set has no k-th neighbour, and for features that are not finite.

    Args:
        features: Features (N, D).
        reference: Features (M, D).
        neighbours: k of the nearest neighbours.
        chunk: Rows whose distances are in memory at once.

    Returns:
        Precision and recall.

    Raises:
        ValueError: A set has no k-th neighbour, or features are not finite.
    """
    features, reference = check_pair(features, reference, _named("precision and recall", neighbours), neighbours + 1)
    precision = _inside(features, reference, _radii(reference, neighbours, chunk), chunk) > 0
    recall = _inside(reference, features, _radii(features, neighbours, chunk), chunk) > 0
    return float(precision.double().mean()), float(recall.double().mean())


def density_coverage(features: Tensor, reference: Tensor, neighbours: int, chunk: int = 1024) -> tuple[float, float]:
    """Density and coverage (Naeem et al., 2020, eq. 3 and 4) with k nearest neighbours.

    Density: how many reference spheres hold one of ``features``, over k, on average (more than 1 is possible).
    Coverage: share of reference spheres that hold any. Raises ValueError as ``precision_recall`` does.

    Args:
        features: Features (N, D).
        reference: Features (M, D).
        neighbours: k of the nearest neighbours.
        chunk: Rows whose distances are in memory at once.

    Returns:
        Density and coverage.

    Raises:
        ValueError: A set has no k-th neighbour, or features are not finite.
    """
    features, reference = check_pair(features, reference, _named("density and coverage", neighbours), neighbours + 1)
    radii = _radii(reference, neighbours, chunk)
    inside = [(_apart(rows, reference) < radii).double().sum(1) for rows in features.split(chunk)]
    nearest = torch.cat([_apart(rows, features).amin(1) for rows in reference.split(chunk)])
    return float(torch.cat(inside).mean()) / neighbours, float((nearest < radii).double().mean())


def covered(points: Tensor, manifold: Tensor, neighbours: int, chunk: int = 1024) -> Tensor:
    """Which points lie inside the manifold's k-nearest-neighbour spheres, bool (N,); precision is its mean.

    Args:
        points: Features (N, D).
        manifold: Features (M, D).
        neighbours: k of the nearest neighbours.
        chunk: Rows whose distances are in memory at once.

    Returns:
        bool (N,).

    Raises:
        ValueError: A set has no k-th neighbour, or features are not finite.
    """
    points, manifold = check_pair(points, manifold, _named("precision and recall", neighbours), neighbours + 1)
    return _inside(points, manifold, _radii(manifold, neighbours, chunk), chunk) > 0


def _named(metric: str, neighbours: int) -> str:
    return f"{metric} with {neighbours} neighbours"


def _inside(points: Tensor, centres: Tensor, radii: Tensor, chunk: int) -> Tensor:
    """How many spheres hold each point, int (N,)."""
    return torch.cat([(_apart(rows, centres) <= radii).sum(1) for rows in points.split(chunk)])


def _radii(points: Tensor, neighbours: int, chunk: int) -> Tensor:
    """Squared distance of each point to its k-th neighbour (N,); the nearest of all is the point itself."""
    return torch.cat([_apart(rows, points).kthvalue(neighbours + 1, dim=1).values for rows in points.split(chunk)])


def _apart(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (N, M); what is below the rounding of the products is 0, as of a point from itself."""
    lengths = x.square().sum(1)[:, None] + y.square().sum(1)
    squared = lengths - 2 * x @ y.T
    return squared.where(squared > ROUNDING * lengths, 0)
