"""Adversarial losses over several feature levels (vision-aided GAN recipe).

Shapes: B batch; every level's logits are (B, M_i).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

Logits = Sequence[Tensor]


def discriminator_loss(real: Logits, fake: Logits, label_smoothing: float) -> Tensor:
    """Cross entropy of real against the soft label and of fake against 0, averaged over levels; a scalar.

    ``label_smoothing`` is the target of the real side (published: 0.8); 1 is the hard label.
    """
    losses = [
        label_smoothing * softplus(-r).mean() + (1 - label_smoothing) * softplus(r).mean() + softplus(f).mean()
        for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(losses).mean()


def generator_loss(fake: Logits) -> Tensor:
    """Non-saturating loss of the generator, averaged over levels; a scalar."""
    return torch.stack([softplus(-level).mean() for level in fake]).mean()
