"""Distances between sets of images in the evaluator's feature space.

Shapes: N images, D features; features are float (N, D).
"""

import numpy as np
import torch
from cleanfid.fid import fid_from_feats, get_batch_features
from torch import Tensor

from onex_distill.shapes.networks import ShapesReader


class FeatureExtractor:
    """The evaluator as clean-fid's custom feature extractor: images in [0, 255] to features (N, D)."""

    def __init__(self, evaluator: ShapesReader) -> None:
        self.evaluator = evaluator.eval()

    def __call__(self, images: Tensor) -> Tensor:
        """Features of a batch (N, 3, H, W) of pixels in [0, 255]."""
        return self.evaluator.features(images.float() / 255)


def extract_features(evaluator: ShapesReader, images: Tensor, batch_size: int = 256) -> Tensor:
    """Features of uint8 images (N, 3, H, W), through clean-fid's own batching function."""
    extractor = FeatureExtractor(evaluator)
    batches = [get_batch_features(batch, extractor, torch.device("cpu")) for batch in images.split(batch_size)]
    return torch.from_numpy(np.concatenate(batches))


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


def precision_recall(features: Tensor, reference: Tensor, neighbours: int) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al., 2019, eq. 1-3) with k nearest neighbours.

    Precision: share of ``features`` inside the reference manifold; recall: share of ``reference`` inside the other.
    Raises ValueError when a set has no k-th neighbour.
    """
    if min(len(features), len(reference)) <= neighbours:
        raise ValueError(f"precision and recall with {neighbours} neighbours need more than {neighbours} images")
    return _covered(features, reference, neighbours), _covered(reference, features, neighbours)


def _covered(points: Tensor, manifold: Tensor, neighbours: int) -> float:
    """Share of points within the k-th neighbour radius of any manifold point."""
    radii = torch.cdist(manifold, manifold).kthvalue(neighbours + 1, dim=1).values
    return float((torch.cdist(points, manifold) <= radii).any(1).float().mean())
