"""Stage one: structure-focused distribution matching with timestep-aware guidance (paper, section on stage one).

One step draws each sample's step k first, rolls the student out only that far, runs the student once with gradient,
trains the fake score on the detached result, and then the student on the difference of the two scores.

Shapes: B batch, K steps; latents (B, C, H, W); step and sigma (B,).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from diffusers import SD3Transformer2DModel
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import mse_loss

from onex_distill.engine.checkpoint import Stateful
from onex_distill.engine.job import Job
from onex_distill.engine.loop import LoopParams, train
from onex_distill.engine.optimisation import OptimizerParams, Stepper, moving_average
from onex_distill.engine.randomness import generator
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.run import Run
from onex_distill.engine.weights import gather, load_transformer, place, save_transformer
from onex_distill.flow.conversions import euler_step, renoise, velocity_to_x0
from onex_distill.flow.guidance import Axis, is_guided
from onex_distill.flow.sigma_sampling import PRESETS, importance_weights, sample_window_sigmas
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.losses.distribution_matching import distribution_matching_loss
from onex_distill.models.noise import latent_shape
from onex_distill.models.prompts import PromptBatch, read_prompts
from onex_distill.models.velocity import predict_guided_velocity, predict_velocity
from onex_distill.parameters import Params
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TableFolder


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


class Draws(NamedTuple):
    """All random numbers of one step, for the whole batch: a pure function of (seed, step), the same on every rank."""

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


class StageOneJob(Job):
    """Distil ``teacher`` into a K-step student on the training captions of ``embeddings``; no image is needed."""

    teacher: ModelFolder
    shift: float
    embeddings: TableFolder
    empty: TableFolder
    params: StageOneParams

    def run(self, run: Run) -> None:
        """Write ``student`` (its averaged weights) and ``losses.parquet``.

        Raises ValueError when a step's window is too narrow to draw a sigma from.
        """
        trainer = StageOneTrainer(self, run.ranks)
        losses = train(trainer.update, trainer.states(), self.params.loop, run, trainer.describe)
        state = gather(trainer.average.module.state_dict(), run.ranks)
        if run.ranks.is_first:
            save_transformer(state, self.teacher, run.result / "student")
            losses.to_parquet(run.result / "losses.parquet")


class StageOneTrainer:
    """The roles and optimizers of one run, and its update."""

    def __init__(self, job: StageOneJob, ranks: Ranks) -> None:
        params = self.params = job.params
        self.ranks, self.shift = ranks, job.shift
        self.embeddings, self.rows = job.embeddings.open(), job.embeddings.open().rows_where("split", "train")
        teacher, student, fake_score, average = (load_transformer(job.teacher) for _ in range(4))
        self.latent_shape = latent_shape(teacher)
        self.average = moving_average(average, params.ema_decay)
        place(self.average.module, ranks)
        self.roles = Roles(
            teacher=place(teacher, ranks).requires_grad_(False).eval(),
            student=place(student, ranks).requires_grad_(True).train(),
            fake_score=place(fake_score, ranks).requires_grad_(True).train(),
            empty=read_prompts(job.empty.open(), [0], ranks.device),
        )
        steps = params.loop.steps
        self.student_stepper = Stepper(self.roles.student.parameters(), params.student, steps, ranks)
        self.fake_stepper = Stepper(self.roles.fake_score.parameters(), params.fake_score, steps, ranks)
        self.levels = step_sigmas(params.num_inference_steps, job.shift)
        self.sigmas = _SigmaDraws(params, job.shift, self.levels)

    def states(self) -> dict[str, Stateful]:
        """Everything that a checkpoint has to hold."""
        return {
            "student": self.roles.student,
            "fake_score": self.roles.fake_score,
            "average": self.average,
            "student_stepper": self.student_stepper,
            "fake_stepper": self.fake_stepper,
        }

    def draw(self, step: int) -> Draws:
        """The random numbers of one step."""
        draws = generator(self.params.seed, step, "stage one")
        shape = (self.params.batch_size, *self.latent_shape)
        rows = torch.randint(len(self.rows), shape[:1], generator=draws)
        steps = torch.randint(self.params.num_inference_steps, shape[:1], generator=draws)
        window = Window(self.levels[steps].float(), self.levels[steps + 1].float())
        return Draws(
            rows=rows,
            steps=steps,
            noise=torch.randn(shape, generator=draws),
            fake_sigma=self.sigmas.fake(window, draws),
            fake_noise=torch.randn(shape, generator=draws),
            sigma=self.sigmas.student(window, draws),
            student_noise=torch.randn(shape, generator=draws),
        )

    def describe(self, step: int) -> str:
        """The seed and the prompts of a step, for messages."""
        rows = self.rows[self.draw(step).rows.numpy()].tolist()
        return f"seed {self.params.seed}, rows {rows} of the prompt embeddings"

    def update(self, step: int) -> dict[str, float]:
        """One update of the fake score and one of the student; this rank's part of every value."""
        drawn = self.draw(step)
        total, depth = len(drawn.rows), int(drawn.steps.max())
        share, weight = self.ranks.share(total), self.ranks.weight(total)
        prompts = read_prompts(self.embeddings, self.rows[drawn.rows[share].numpy()], self.ranks.device)
        draws = drawn.share(share, self.ranks.device)
        roles, guidance = self.roles, self.params.guidance
        levels = self.levels.to(self.ranks.device)
        with self.ranks.autocast():
            x_start, window = roll_out(roles.student, draws.noise, draws.steps, levels, prompts, depth)
            velocity = predict_velocity(roles.student, x_start, window.upper, prompts)
            x_end = euler_step(x_start, velocity, window.upper, window.lower)
            x0 = velocity_to_x0(velocity, x_start, window.upper).detach()
            fake_loss = fake_score_loss(roles, x_end.detach(), x0, prompts, window, draws.fake_sigma, draws.fake_noise)
        fake_norm = self.fake_stepper.step(fake_loss * weight)
        guided = is_guided(drawn.sigma[share], guidance.alpha, guidance.axis, self.shift)
        with self.ranks.autocast():
            loss = student_loss(roles, x_end, prompts, window, draws.sigma, guided, guidance.scale, draws.student_noise)
        norm = self.student_stepper.step(loss * weight)
        self.average.update_parameters(roles.student)
        means = {
            "student_loss": float(loss.detach()),
            "fake_score_loss": float(fake_loss.detach()),
            "guided_share": float(guided.float().mean()),
        }
        return self.ranks.part(total, means, {"student_grad_norm": norm, "fake_score_grad_norm": fake_norm})


@torch.no_grad()
def roll_out(
    student: SD3Transformer2DModel, noise: Tensor, steps: Tensor, levels: Tensor, prompts: PromptBatch, depth: int
) -> tuple[Tensor, Window]:
    """Each sample's latent at the start of its step, and the window of that step; no step beyond it is run.

    ``depth`` is the largest step of the whole batch: sharded ranks call the network equally often, if need be on one
    row whose result is dropped.
    """
    x = noise.clone()
    for k in range(depth):
        rows = (steps > k).nonzero()[:, 0]
        joined = rows if len(rows) else torch.zeros(1, dtype=torch.int64, device=x.device)
        velocity = predict_velocity(student, x[joined], float(levels[k]), prompts[joined])
        if len(rows):
            x[rows] = euler_step(x[rows], velocity, float(levels[k]), float(levels[k + 1]))
    return x, Window(levels[steps].float(), levels[steps + 1].float())


def fake_score_loss(
    roles: Roles, x_end: Tensor, x0: Tensor, prompts: PromptBatch, window: Window, sigma: Tensor, noise: Tensor
) -> Tensor:
    """Flow matching on the student's own distribution: re-noise the step's end, regress (x_sigma - x0) / sigma."""
    x_sigma = renoise(x_end, window.lower, sigma, noise)
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
    noise: Tensor,
) -> Tensor:
    """Distribution matching at the step's end: both scores take one Euler step from sigma back to the window's end."""
    with torch.no_grad():
        x_sigma = renoise(x_end, window.lower, sigma, noise)
        real = predict_guided_velocity(roles.teacher, x_sigma, sigma, prompts, roles.empty, guidance_scale, guided)
        fake = predict_velocity(roles.fake_score, x_sigma, sigma, prompts)
        x_real = euler_step(x_sigma, real, sigma, window.lower)
        x_fake = euler_step(x_sigma, fake, sigma, window.lower)
    return distribution_matching_loss(x_end, x_real, x_fake)


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
