"""Distances between sets of images in a feature space.

Shapes: N images, D features; features are float (N, D).
"""

import torch
from cleanfid.fid import fid_from_feats
from torch import Tensor


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """clean-fid's Frechet distance between Gaussians fitted to two sets of features.

    Raises ValueError when the sets are so small that their covariances have no square root in floating point.
    """
    try:
        return float(fid_from_feats(features.double().numpy(), reference.double().numpy()))
    except ValueError as error:
        raise ValueError(
            f"the Frechet distance of {len(features)} and {len(reference)} images with {features.shape[1]} features "
            "cannot be computed; measure more images than features (evaluation_set.captions)"
        ) from error


def diversity(features: Tensor, groups: Tensor) -> float:
    """Mean pairwise distance between the images of one caption, averaged over captions; ``groups`` is int (N,).

    Raises ValueError when no caption has two images.
    """
    distances = []
    for group in groups.unique():
        members = features[groups == group]
        if len(members) > 1:
            distances.append(torch.pdist(members).mean())
    if not distances:
        raise ValueError("diversity needs at least two images of one caption; raise images_per_caption")
    return float(torch.stack(distances).mean())
