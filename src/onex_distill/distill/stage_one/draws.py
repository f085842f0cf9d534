"""What stage one draws in a step: for the whole batch, a pure function of (seed, step), the same on every rank.

Shapes: B batch; latents (B, C, H, W).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from onex_distill.distill.stage_one.params import StageOneParams
from onex_distill.engine.randomness import generator
from onex_distill.flow.sigma_draws import Window, importance_weights, matching_window, sample_window_sigmas
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.prompts import PromptBatch


class Draws(NamedTuple):
    """All random numbers of one step."""

    rows: Tensor  # (B,) prompts, by position in the training split
    steps: Tensor  # (B,) the step k that each sample trains
    noise: Tensor  # (B, C, H, W) where its trajectory starts
    fake_sigma: Tensor  # (B,) level of the fake score's update
    fake_noise: Tensor  # (B, C, H, W)
    sigma: Tensor  # (B,) level of the student's update
    student_noise: Tensor  # (B, C, H, W)

    def share(self, rows: slice, device: torch.device) -> "Draws":
        """One rank's rows, on its device."""
        return Draws(*(value[rows].to(device) for value in self))


class StepBatch(NamedTuple):
    """What one rank needs of a step, for all of its rows or for some of them at once."""

    draws: Draws
    levels: Tensor  # (K + 1,) of the step
    depth: int  # the largest step k of the whole batch
    prompts: PromptBatch
    guided: Tensor  # (B,) bool, on the CPU: whether the real score is guided

    def part(self, rows: slice) -> "StepBatch":
        """Some of the rows."""
        draws = self.draws.share(rows, self.draws.noise.device)
        return self._replace(draws=draws, prompts=self.prompts[rows], guided=self.guided[rows])


class StepDraws:
    """The draws of every step of one run. Raises ValueError when a step's window is too narrow to draw a sigma from."""

    def __init__(self, params: StageOneParams, shift: float, latent_shape: tuple[int, int, int], prompts: int) -> None:
        importance = params.importance
        self.params, self.shift, self.latent_shape, self.prompts = params, shift, latent_shape, prompts
        self.weights = importance_weights(importance.knots, importance.axis, shift, importance.smoothing)
        for count in params.step_counts:  # a window too narrow stops the run before it starts
            levels = step_sigmas(count, shift)
            self._sigma(torch.ones_like(self.weights), levels, torch.arange(count), torch.Generator().manual_seed(0))

    def levels(self, step: int) -> Tensor:
        """The levels of the K that a step trains, (K + 1,) float64."""
        counts = self.params.step_counts
        drawn = torch.randint(len(counts), (1,), generator=generator(self.params.seed, step, "number of steps"))
        return step_sigmas(counts[int(drawn)], self.shift)

    def draw(self, step: int) -> Draws:
        """The random numbers of one step."""
        draws, levels = generator(self.params.seed, step, "stage one"), self.levels(step)
        shape = (self.params.batch_size, *self.latent_shape)
        rows = torch.randint(self.prompts, shape[:1], generator=draws)
        steps = torch.randint(len(levels) - 1, shape[:1], generator=draws)
        return Draws(
            rows=rows,
            steps=steps,
            noise=torch.randn(shape, generator=draws),
            fake_sigma=self._sigma(torch.ones_like(self.weights), levels, steps, draws),
            fake_noise=torch.randn(shape, generator=draws),
            sigma=self._sigma(self.weights, levels, steps, draws),
            student_noise=torch.randn(shape, generator=draws),
        )

    def _sigma(self, weights: Tensor, levels: Tensor, steps: Tensor, draws: torch.Generator) -> Tensor:
        step = Window(levels[steps].float(), levels[steps + 1].float())
        window = matching_window(step, self.params.sigma_range, self.params.matched)
        return sample_window_sigmas(weights, self.shift, window.upper.double(), window.lower.double(), draws).float()
