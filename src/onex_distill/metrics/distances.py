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
    """Mean of ``prompt_diversity`` over prompts. Raises ValueError when no prompt has two images."""
    return float(prompt_diversity(features, groups)[1].mean())


def prompt_diversity(features: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """Prompts with several images, ascending, and the mean pairwise distance between the images of each, (P,).

    Raises ValueError when no prompt has two images.
    """
    known, distances = [], []
    for prompt in prompts.unique():
        members = features[prompts == prompt]
        if len(members) > 1:
            known.append(prompt)
            distances.append(torch.pdist(members).mean())
    if not distances:
        raise ValueError("diversity needs at least two images of one caption; raise images_per_caption")
    return torch.stack(known), torch.stack(distances)
