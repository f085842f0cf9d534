"""Shifted sigma schedules of rectified-flow samplers.

Shapes: a schedule of K steps has K + 1 levels, from 1 (pure noise) down to 0.
"""

from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

Level = TypeVar("Level", float, Tensor)


def shift_sigma(u: Level, shift: float) -> Level:
    """sigma(u) = s u / (1 + (s - 1) u) (Stable Diffusion 3, timestep shifting; s = 3 in its schedulers)."""
    return shift * u / (1 + (shift - 1) * u)


def unshift_sigma(sigma: Level, shift: float) -> Level:
    """The inverse of ``shift_sigma``: u = sigma / (s - (s - 1) sigma)."""
    return sigma / (shift - (shift - 1) * sigma)


def step_sigmas(num_inference_steps: int, shift: float) -> Tensor:
    """Levels of a K-step student, (K + 1,) float64: u = 1, (K-1)/K, ..., 0 after the shift (paper, notation).

    Raises ValueError when K is not positive.
    """
    if num_inference_steps < 1:
        raise ValueError(f"num_inference_steps must be at least 1, got {num_inference_steps}")
    u = torch.linspace(1, 0, num_inference_steps + 1, dtype=torch.float64)
    return shift_sigma(u, shift)


def refined_levels(coarse: Tensor, fine: Tensor) -> list[Tensor]:
    """For each step of one schedule, the levels at which another, finer one takes it, both ends included.

    Args:
        coarse: The levels of K steps, (K + 1,).
        fine: The levels of the other schedule.

    Returns:
        K tensors of falling levels, the first of which is the step's upper end and the last its lower.
    """
    tolerance = 1e-6  # levels of both schedules that are meant to be the same
    steps = []
    for upper, lower in pairwise(coarse):
        between = fine[(fine < upper - tolerance) & (fine > lower + tolerance)]
        steps.append(torch.cat([upper[None], between, lower[None]]))
    return steps
