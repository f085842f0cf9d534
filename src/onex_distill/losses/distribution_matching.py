"""Distribution matching (DMD) as a regression.

Shapes: B batch; latents (B, C, H, W).
"""

import math

import torch
from torch import Tensor

WEIGHT_FLOOR = 1e-4


def pseudo_huber_constant(numel: int) -> float:
    """c = 1e-3 sqrt(numel / (64 * 64 * 4)) for latents of ``numel`` elements per sample (published setting)."""
    return 1e-3 * math.sqrt(numel / (64 * 64 * 4))


def pseudo_huber(difference: Tensor, c: float) -> Tensor:
    """sqrt(d^2 + c^2) - c, elementwise."""
    return torch.sqrt(difference**2 + c**2) - c


def sample_weight(x: Tensor, x_real: Tensor) -> Tensor:
    """1 / mean |x - x_real| over channels, height and width (paper, stage one), (B, 1, 1, 1); no gradient.

    The mean is floored against division by zero.
    """
    dims = tuple(range(1, x.ndim))
    return 1 / (x - x_real).detach().abs().mean(dims, keepdim=True).clamp_min(WEIGHT_FLOOR)


def distribution_matching_loss(x: Tensor, x_real: Tensor, x_fake: Tensor) -> Tensor:
    """Regress x on stop_grad(x + x_real - x_fake): the gradient points along x_fake - x_real (paper, stage one).

    Each sample has its ``sample_weight``; only ``x`` receives a gradient. Returns a scalar.
    """
    target = (x - (x_fake - x_real)).detach()  # in this order, equal scores give exactly zero
    return (sample_weight(x, x_real) * pseudo_huber(x - target, pseudo_huber_constant(x[0].numel()))).mean()
