"""Stage one: structure-focused distribution matching with timestep-aware guidance (paper, section on stage one).

One step draws each sample's step k first, rolls the student out only that far, runs the student once with gradient,
trains the fake score on the detached result, and then the student on the difference of the two scores.

Shapes: B batch, K steps; latents (B, C, H, W); step and sigma (B,).
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd
import torch
from diffusers import SD3Transformer2DModel
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import mse_loss

from onex_distill.engine.checkpoint import fingerprint_of, index_fingerprint, module_fingerprint
from onex_distill.engine.loop import LoopParams, train
from onex_distill.engine.optimisation import OptimizerParams, Stepper, moving_average
from onex_distill.engine.randomness import generator
from onex_distill.flow.conversions import euler_step, renoise, velocity_to_x0
from onex_distill.flow.guidance import Axis, is_guided
from onex_distill.flow.sigma_sampling import PRESETS, importance_weights, sample_window_sigmas
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.losses.distribution_matching import distribution_matching_loss
from onex_distill.models.noise import latent_shape
from onex_distill.models.prompts import PromptBatch, read_prompts
from onex_distill.models.velocity import predict_guided_velocity, predict_velocity
from onex_distill.parameters import Params
from onex_distill.storage.tensor_table import TensorTable


class GuidanceParams(Params):
    """The real score's guidance: its scale, and the level above which it is switched off (paper, eq. 4)."""

    scale: PositiveFloat
    alpha: float = Field(ge=0, le=1)
    axis: Axis


class ImportanceParams(Params):
    """The density from which the student update draws sigma."""

    preset: Literal["uniform", "c"]
    axis: Axis
    smoothing: NonNegativeFloat


class StageOneParams(Params):
    """One distribution-matching run."""

    seed: int
    num_inference_steps: PositiveInt
    batch_size: PositiveInt
    guidance: GuidanceParams
    importance: ImportanceParams
    student: OptimizerParams
    fake_score: OptimizerParams
    ema_decay: float = Field(ge=0, lt=1)
    loop: LoopParams


@dataclass
class Roles:
    """The three copies of the transformer, and the empty prompt that guidance subtracts."""

    teacher: SD3Transformer2DModel
    student: SD3Transformer2DModel
    fake_score: SD3Transformer2DModel
    empty: PromptBatch


class Window(NamedTuple):
    """The part of the trajectory that one sample trains on: from ``upper`` down to ``lower``, each (B,) float32."""

    upper: Tensor
    lower: Tensor


def train_stage_one(
    teacher: SD3Transformer2DModel,
    prompts: TensorTable,
    empty: TensorTable,
    shift: float,
    params: StageOneParams,
    run_dir: Path,
) -> tuple[SD3Transformer2DModel, pd.DataFrame]:
    """Distil ``teacher`` into a K-step student on the captions of ``prompts``; returns its averaged weights.

    No image is needed. Raises ValueError when a step's window is too narrow to draw a sigma from.
    """
    teacher.requires_grad_(False).eval()
    student = copy.deepcopy(teacher).requires_grad_(True).train()
    fake_score = copy.deepcopy(teacher).requires_grad_(True).train()
    roles = Roles(teacher, student, fake_score, read_prompts(empty, [0]))
    student_stepper = Stepper(student.parameters(), params.student, params.loop.steps)
    fake_stepper = Stepper(fake_score.parameters(), params.fake_score, params.loop.steps)
    average = moving_average(student, params.ema_decay)
    levels = step_sigmas(params.num_inference_steps, shift)
    draw_sigmas = _SigmaDraws(params, shift, levels)

    def update(step: int) -> dict[str, float]:
        draws = generator(params.seed, step, "stage one")
        batch = _draw_batch(prompts, params, draws)
        noise = torch.randn((params.batch_size, *latent_shape(teacher)), generator=draws)
        x_start, window = roll_out(student, noise, batch.steps, levels, batch.prompts)
        velocity = predict_velocity(student, x_start, window.upper, batch.prompts)
        x_end = euler_step(x_start, velocity, window.upper, window.lower)
        x0 = velocity_to_x0(velocity, x_start, window.upper).detach()
        fake_loss = fake_score_loss(
            roles, x_end.detach(), x0, batch.prompts, window, draw_sigmas.fake(window, draws), draws
        )
        fake_norm = fake_stepper.step(fake_loss)
        sigma = draw_sigmas.student(window, draws)
        guided = is_guided(sigma, params.guidance.alpha, params.guidance.axis, shift)
        loss = student_loss(roles, x_end, batch.prompts, window, sigma, guided, params.guidance.scale, draws)
        norm = student_stepper.step(loss)
        average.update_parameters(student)
        return {
            "student_loss": float(loss.detach()),
            "fake_score_loss": float(fake_loss.detach()),
            "student_grad_norm": norm,
            "fake_score_grad_norm": fake_norm,
            "guided_share": float(guided.float().mean()),
        }

    states = {
        "student": student,
        "fake_score": fake_score,
        "average": average,
        "student_stepper": student_stepper,
        "fake_stepper": fake_stepper,
    }
    fingerprint = fingerprint_of(
        params.model_dump(), module_fingerprint(teacher), index_fingerprint(prompts.index, ["text"]), shift
    )
    history = train(update, states, params.loop, run_dir, fingerprint)
    averaged: SD3Transformer2DModel = average.module
    return averaged.requires_grad_(False).eval(), history


@torch.no_grad()
def roll_out(
    student: SD3Transformer2DModel, noise: Tensor, steps: Tensor, levels: Tensor, prompts: PromptBatch
) -> tuple[Tensor, Window]:
    """Each sample's latent at the start of its step, and the window of that step; no step beyond it is run."""
    x = noise.clone()
    for k in range(int(steps.max())):
        rows = (steps > k).nonzero()[:, 0]
        velocity = predict_velocity(student, x[rows], float(levels[k]), prompts[rows])
        x[rows] = euler_step(x[rows], velocity, float(levels[k]), float(levels[k + 1]))
    return x, Window(levels[steps].float(), levels[steps + 1].float())


def fake_score_loss(
    roles: Roles, x_end: Tensor, x0: Tensor, prompts: PromptBatch, window: Window, sigma: Tensor, draws: torch.Generator
) -> Tensor:
    """Flow matching on the student's own distribution: re-noise the step's end, regress (x_sigma - x0) / sigma."""
    x_sigma = renoise(x_end, window.lower, sigma, torch.randn(x_end.shape, generator=draws))
    target = (x_sigma - x0) / sigma[:, None, None, None]
    return mse_loss(predict_velocity(roles.fake_score, x_sigma, sigma, prompts), target)


def student_loss(
    roles: Roles,
    x_end: Tensor,
    prompts: PromptBatch,
    window: Window,
    sigma: Tensor,
    guided: Tensor,
    guidance_scale: float,
    draws: torch.Generator,
) -> Tensor:
    """Distribution matching at the step's end: both scores take one Euler step from sigma back to the window's end."""
    with torch.no_grad():
        x_sigma = renoise(x_end, window.lower, sigma, torch.randn(x_end.shape, generator=draws))
        real = predict_guided_velocity(roles.teacher, x_sigma, sigma, prompts, roles.empty, guidance_scale, guided)
        fake = predict_velocity(roles.fake_score, x_sigma, sigma, prompts)
        x_real = euler_step(x_sigma, real, sigma, window.lower)
        x_fake = euler_step(x_sigma, fake, sigma, window.lower)
    return distribution_matching_loss(x_end, x_real, x_fake)


class _Batch(NamedTuple):
    prompts: PromptBatch
    steps: Tensor


def _draw_batch(prompts: TensorTable, params: StageOneParams, draws: torch.Generator) -> _Batch:
    rows = torch.randint(len(prompts), (params.batch_size,), generator=draws)
    steps = torch.randint(params.num_inference_steps, (params.batch_size,), generator=draws)
    return _Batch(read_prompts(prompts, rows), steps)


class _SigmaDraws:
    """Draws inside a window: by the importance curve for the student, uniformly over the grid for the fake score."""

    def __init__(self, params: StageOneParams, shift: float, levels: Tensor) -> None:
        importance = params.importance
        self.shift = shift
        self.weights = importance_weights(PRESETS[importance.preset], importance.axis, shift, importance.smoothing)
        # one draw from every window now, so that a window too narrow to draw from stops the run before it starts
        self.fake(Window(levels[:-1].float(), levels[1:].float()), torch.Generator().manual_seed(0))

    def student(self, window: Window, draws: torch.Generator) -> Tensor:
        return self._draw(self.weights, window, draws)

    def fake(self, window: Window, draws: torch.Generator) -> Tensor:
        return self._draw(torch.ones_like(self.weights), window, draws)

    def _draw(self, weights: Tensor, window: Window, draws: torch.Generator) -> Tensor:
        sigma = sample_window_sigmas(weights, self.shift, window.upper.double(), window.lower.double(), draws)
        return sigma.float()
