"""Where the student's and the fake score's sigmas are drawn: windows, and the paper's importance curve.

Shapes: B batch; G = 1000 points of the shifted grid; sigmas are float64 (B,).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from onex_distill.flow.guidance import Axis, on_axis
from onex_distill.flow.sigmas import shift_sigma

GRID_POINTS = 1000

Knots = tuple[tuple[float, float], ...]
SigmaRange = Literal["step", "full"]
MatchedLatent = Literal["step_end", "x0"]

PRESETS: dict[str, Knots] = {
    "uniform": ((0.0, 1.0), (1000.0, 1.0)),
    "c": ((0.0, 0.6), (300.0, 1.3), (500.0, 0.05), (1000.0, 0.001)),
}


class Window(NamedTuple):
    """A stretch of the trajectory, from ``upper`` down to ``lower``, each (B,) float32."""

    upper: Tensor
    lower: Tensor


def matching_window(step: Window, sigma_range: SigmaRange, matched: MatchedLatent) -> Window:
    """Between which levels the scores are compared: ``lower`` is the matched latent's own, ``upper`` the highest drawn.

    A step's end at its own window's levels is the paper's choice (and TDM's); x0 over the full range is DMD's and
    DMD2's.
    """
    return Window(
        upper=torch.ones_like(step.upper) if sigma_range == "full" else step.upper,
        lower=torch.zeros_like(step.lower) if matched == "x0" else step.lower,
    )


def sigma_grid(shift: float) -> Tensor:
    """The shifted grid of 1000 training levels, (G,) float64, from 1 down to above 0."""
    u = torch.arange(GRID_POINTS, 0, -1, dtype=torch.float64) / GRID_POINTS
    return shift_sigma(u, shift)


def importance_weights(knots: Sequence[tuple[float, float]], axis: Axis, shift: float, smoothing: float) -> Tensor:
    """Unnormalised density over ``sigma_grid`` (paper, importance sampling of the student update).

    Args:
        knots: (position, density) with position = 1000 (1 - u) or 1000 (1 - sigma); between them the curve is linear.
        axis: Whether positions are of u or of sigma.
        shift: The shift of the levels.
        smoothing: Width in positions of the Gaussian that smooths the curve in log space, with edge padding.

    Returns:
        (G,) float64.
    """
    positions = torch.arange(GRID_POINTS + 1, dtype=torch.float64)
    curve = _smooth_log(_interpolate(positions, knots), smoothing)
    grid_positions = 1000 * (1 - on_axis(sigma_grid(shift), axis, shift))
    return _interpolate(grid_positions, list(zip(positions.tolist(), curve.tolist(), strict=True)))


def sample_window_sigmas(
    weights: Tensor, shift: float, upper: Tensor, lower: Tensor, generator: torch.Generator
) -> Tensor:
    """One sigma per sample from the grid inside its window (lower, upper].

    Args:
        weights: The density over the grid, (G,) float64.
        shift: The shift of the levels.
        upper: The windows' upper ends, (B,).
        lower: Their lower ends, (B,).
        generator: Of the draws.

    Returns:
        (B,) float64.

    Raises:
        ValueError: A window holds no grid point.
    """
    grid = sigma_grid(shift)
    tolerance = 1e-6  # levels pass through float32
    inside = (grid[None] <= upper[:, None] + tolerance) & (grid[None] > lower[:, None] + tolerance)
    if not inside.any(1).all():
        raise ValueError("a step's window holds none of the 1000 training levels; use fewer steps")
    choice = torch.multinomial(weights[None] * inside, 1, generator=generator)[:, 0]
    return grid[choice]


def _interpolate(positions: Tensor, knots: Sequence[tuple[float, float]]) -> Tensor:
    """Piecewise-linear through the knots, constant outside them."""
    x = torch.tensor([k[0] for k in knots], dtype=torch.float64)
    y = torch.tensor([k[1] for k in knots], dtype=torch.float64)
    right = torch.searchsorted(x, positions).clamp(1, len(x) - 1)
    left = right - 1
    t = ((positions - x[left]) / (x[right] - x[left])).clamp(0, 1)
    return y[left] + t * (y[right] - y[left])


def _smooth_log(curve: Tensor, width: float) -> Tensor:
    """Gaussian smoothing of log(curve) with replicated edges; width 0 leaves it alone."""
    if width == 0:
        return curve
    radius = int(4 * width)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / width) ** 2)
    log_curve = curve.log()[None, None]
    padded = torch.nn.functional.pad(log_curve, (radius, radius), mode="replicate")
    return torch.nn.functional.conv1d(padded, (kernel / kernel.sum())[None, None])[0, 0].exp()
