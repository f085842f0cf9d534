"""A perceptual distance on the features of any frozen network.

Shapes: B batch; every level is (B, C_i, H_i, W_i).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize


def perceptual_distance(levels: Sequence[Tensor], expected: Sequence[Tensor]) -> Tensor:
    """Squared distance of features at unit length over channels, the mean over places and the sum over levels.

    LPIPS (Zhang et al., 2018, eq. 1) with all channel weights at one: the learned weights belong to networks that are
    not part of this project. A scalar.
    """
    distances = [
        (normalize(ours, dim=1) - normalize(theirs, dim=1)).square().sum(1).mean()
        for ours, theirs in zip(levels, expected, strict=True)
    ]
    return torch.stack(distances).sum()
