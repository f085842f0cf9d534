"""Conversions between x0, noise, velocity and x_t of a rectified flow.

x_t = (1 - sigma) x0 + sigma noise; velocity = noise - x0 (paper, preliminaries; Stable Diffusion 3, eq. 13 with the
straight path). Shapes: B batch, then any; sigma is a float or (B,) and broadcasts over the remaining dimensions.
"""

import torch
from torch import Tensor

Sigma = float | Tensor


def expand_sigma(sigma: Sigma, like: Tensor) -> Tensor:
    """``sigma`` as a tensor that broadcasts against ``like`` (B, ...)."""
    tensor = torch.as_tensor(sigma, dtype=like.dtype, device=like.device)
    return tensor.reshape(-1, *[1] * (like.ndim - 1)) if tensor.ndim else tensor


def add_noise(x0: Tensor, noise: Tensor, sigma: Sigma) -> Tensor:
    """x_t at level sigma."""
    s = expand_sigma(sigma, x0)
    return (1 - s) * x0 + s * noise


def velocity_of(x0: Tensor, noise: Tensor) -> Tensor:
    """The velocity of the straight path, noise - x0."""
    return noise - x0


def velocity_to_x0(velocity: Tensor, x_t: Tensor, sigma: Sigma) -> Tensor:
    """x0 = x_t - sigma * velocity."""
    return x_t - expand_sigma(sigma, x_t) * velocity


def x0_to_velocity(x0: Tensor, x_t: Tensor, sigma: Sigma) -> Tensor:
    """velocity = (x_t - x0) / sigma, what the fake score regresses (paper, stage one); sigma must be above 0."""
    return (x_t - x0) / expand_sigma(sigma, x_t)


def velocity_to_noise(velocity: Tensor, x_t: Tensor, sigma: Sigma) -> Tensor:
    """noise = x_t + (1 - sigma) * velocity."""
    return x_t + (1 - expand_sigma(sigma, x_t)) * velocity


def euler_step(x_t: Tensor, velocity: Tensor, sigma: Sigma, sigma_next: Sigma) -> Tensor:
    """One Euler step of the flow: x + (sigma_next - sigma) v.

    Args:
        x_t: Where it starts, (B, ...).
        velocity: v there, of the same shape.
        sigma: The level of ``x_t``, one number or (B,).
        sigma_next: The level that is reached, one number or (B,).

    Returns:
        The point at ``sigma_next``.
    """
    return x_t + (expand_sigma(sigma_next, x_t) - expand_sigma(sigma, x_t)) * velocity


def renoise(x: Tensor, sigma_from: Sigma, sigma_to: Sigma, noise: Tensor) -> Tensor:
    """Move x up to a higher level with fresh noise.

    a = (1 - sigma_to) / (1 - sigma_from); x' = a x + sqrt(sigma_to^2 - (sigma_from a)^2) noise (paper, stage one).

    Args:
        x: A point of the flow, (B, ...).
        sigma_from: Its level, one number or (B,), below 1: pure noise carries no x0 to keep.
        sigma_to: The level that is reached, at least ``sigma_from``.
        noise: Standard normal, like ``x``.

    Returns:
        The point at ``sigma_to``.
    """
    low, high = expand_sigma(sigma_from, x), expand_sigma(sigma_to, x)
    scale = (1 - high) / (1 - low)
    return scale * x + (high**2 - (low * scale) ** 2).clamp_min(0).sqrt() * noise
