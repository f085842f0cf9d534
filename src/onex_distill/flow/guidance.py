"""Classifier-free guidance and the paper's timestep-aware switch.

Shapes: B batch; velocities (B, C, H, W); sigma (B,).
"""

from typing import Literal

from torch import Tensor

from onex_distill.flow.sigmas import shift_sigma, unshift_sigma

Axis = Literal["sigma", "u"]


def guided_velocity(conditional: Tensor, unconditional: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance, unconditional + w (conditional - unconditional); w = 1 is the conditional itself."""
    return unconditional + guidance_scale * (conditional - unconditional)


def is_guided(sigma: Tensor, alpha: float, axis: Axis, shift: float) -> Tensor:
    """Which samples the real score guides: those at or below ``alpha`` (paper, eq. 4).

    Args:
        sigma: The samples' levels, (B,).
        alpha: 1 guides everywhere (vanilla distribution matching), 0 nowhere.
        axis: Whether alpha is compared with sigma (after the shift, as in the published configurations) or u (before).
        shift: The shift of the levels.

    Returns:
        bool (B,).
    """
    return on_axis(sigma, axis, shift) <= alpha


def on_axis(sigma: Tensor, axis: Axis, shift: float) -> Tensor:
    """Sigma itself, or the u that the shift made it from."""
    return sigma if axis == "sigma" else unshift_sigma(sigma, shift)


def as_sigma(position: float, axis: Axis, shift: float) -> float:
    """The sigma of a position on an axis: the inverse of ``on_axis``."""
    return position if axis == "sigma" else shift_sigma(position, shift)
