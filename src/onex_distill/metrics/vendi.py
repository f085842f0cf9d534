"""The Vendi score: how many different images a set amounts to.

Shapes: N images, D features; features are float (N, D).
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from onex_distill.metrics.rows import check_rows


def vendi_score(features: Tensor) -> float:
    """exp of the entropy of the eigenvalues of K / n, K being the cosines (Friedman and Dieng, 2023, eq. 3).

    1 for copies of one image, n for images that have nothing in common. Negative cosines stay, so that K is positive
    semi-definite. Its eigenvalues are those of the smaller of x x^T and x^T x. Raises ValueError for no images and for
    features that are not finite or zero.
    """
    features = normalize(check_rows(features, "the Vendi score"), dim=1, eps=0)
    if not features.isfinite().all():
        raise ValueError("the Vendi score got features of length 0; take the features of another network")
    gram = features @ features.T if len(features) < features.shape[1] else features.T @ features
    values = torch.linalg.eigvalsh(gram / len(features)).clamp_min(0)
    return float(torch.special.entr(values).sum().exp())
