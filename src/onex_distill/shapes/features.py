"""The evaluator's features of images.

Shapes: N images, D features.
"""

import numpy as np
import torch
from cleanfid.fid import get_batch_features
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
