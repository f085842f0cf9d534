"""LPIPS (Zhang et al., 2018) from the activations of a backbone, so that all pairs of N images cost N passes.

Shapes: N images, C channels, h w the size of a stage, P the sum of C h w over stages.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

EPS = 1e-10


def lpips_vectors(stages: Sequence[Tensor], heads: Sequence[Tensor]) -> Tensor:
    """Vectors (N, P) whose squared Euclidean distance is LPIPS.

    ``stages`` are (N, C, h, w), ``heads`` the non-negative weights (C,) of each stage's channels. Activations have
    length 1 at each place; differences are squared, weighted, averaged over places and summed over stages (eq. 1).
    """
    parts = []
    for stage, head in zip(stages, heads, strict=True):
        unit = stage / (stage.norm(dim=1, keepdim=True) + EPS)
        places = stage.shape[2] * stage.shape[3]
        parts.append((unit * (head.clamp_min(0) / places).sqrt()[:, None, None]).flatten(1))
    return torch.cat(parts, dim=1)


def pair_distances(vectors: Tensor) -> Tensor:
    """Squared Euclidean distances (N, N) between rows, by differences: nothing is lost between similar images."""
    return torch.stack([(vectors - vector).square().sum(1) for vector in vectors])


def mean_distance_to_others(vectors: Tensor) -> Tensor:
    """For each of N rows the mean distance to the other N - 1; their mean is the mean over all pairs.

    Raises ValueError for fewer than two rows.
    """
    if len(vectors) < 2:
        raise ValueError("diversity needs at least two images of each caption; raise images_per_caption")
    return pair_distances(vectors).sum(1) / (len(vectors) - 1)
