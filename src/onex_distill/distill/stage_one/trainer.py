"""Stage one: structure-focused distribution matching with timestep-aware guidance (paper, section on stage one).

One step draws each sample's step k first, rolls the student out only that far, runs the student once with gradient,
trains the fake score on the detached result, and then the student on the difference of the two scores.

Shapes: B batch, K steps; latents (B, C, H, W); step and sigma (B,).
"""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Self, cast

import torch
from diffusers import SD3Transformer2DModel
from pydantic import model_validator
from torch import Tensor
from torch.nn.functional import mse_loss

from onex_distill.distill.stage_one.draws import StepBatch, StepDraws
from onex_distill.distill.stage_one.latent_gan import LatentGan
from onex_distill.distill.stage_one.params import StageOneParams
from onex_distill.distill.stage_one.regression import Regression
from onex_distill.distill.stage_one.roles import FAKE_SCORE, STUDENT, Roles, build_networks
from onex_distill.distill.stage_one.validation import BestStudent, Validation
from onex_distill.distill.stage_one.watching import SampleGrid, by_sigma
from onex_distill.engine.accumulation import accumulate, check_micro_batch
from onex_distill.engine.checkpoint import Stateful
from onex_distill.engine.job import Job
from onex_distill.engine.loop import train
from onex_distill.engine.optimisation import Stepper
from onex_distill.engine.run import Run
from onex_distill.flow.conversions import euler_step, renoise, velocity_to_x0, x0_to_velocity
from onex_distill.flow.guidance import is_guided
from onex_distill.flow.sigma_draws import Window, matching_window
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.losses.distribution_matching import distribution_matching_loss
from onex_distill.models.noise import latent_shape
from onex_distill.models.prompts import PromptBatch, read_prompts
from onex_distill.models.velocity import Network, last_features, predict_guided_velocity, predict_velocity
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TableFolder


class StageOneJob(Job):
    """Distil ``teacher`` into a K-step student on the training captions of ``embeddings``; no image is needed.

    DMD2's adversarial term alone asks for ``real_latents``, regression alone for ``trajectories`` of the teacher.
    """

    teacher: ModelFolder
    autoencoder: ModelFolder
    shift: float
    embeddings: TableFolder
    empty: TableFolder
    validation: TableFolder | None
    real_latents: TableFolder | None
    trajectories: TableFolder | None
    params: StageOneParams

    @model_validator(mode="after")
    def _micro_batches_go_round(self) -> Self:
        check_micro_batch(self.params.batch_size, self.params.micro_batch_size, self.compute.ranks)
        return self

    @model_validator(mode="after")
    def _latents_for_the_gan(self) -> Self:
        if self.params.latent_gan and self.real_latents is None:
            raise ValueError(
                "latent_gan needs stored latents of real images, which only dmd2 has; set latent_gan to null here"
            )
        return self

    @model_validator(mode="after")
    def _trajectories_for_the_regression(self) -> Self:
        if self.params.regression and self.trajectories is None:
            raise ValueError("regression needs the teacher's trajectories; set regression to null here")
        return self

    def run(self, run: Run) -> None:
        """Write ``student`` (its averaged weights), ``losses.parquet`` and the table ``grid`` of watched samples.

        With ``validation``, latents of the teacher on a plan, ``best`` is the student that was nearest to them. Raises
        ValueError when a step's window is too narrow to draw a sigma from, or when validation has too few images.
        """
        trainer = StageOneTrainer(self, run)
        losses = train(trainer.update, trainer.states(), self.params.loop, run, trainer.describe)
        trainer.networks.save_student(run.result / "student")
        if run.ranks.is_first:
            losses.to_parquet(run.result / "losses.parquet")
            trainer.grid.write(run.result / "grid")
            if trainer.validation is not None:
                trainer.best.copy_to(run.result / "best")


Means = dict[str, float]  # over rows, by name


class Scored(NamedTuple):
    """A loss to descend, and what to watch of every sample: detached, (B,)."""

    loss: Tensor
    by_sample: Tensor


class Start(NamedTuple):
    """The latents (B, C, H, W) at the upper level of each sample's own step, and that step."""

    x: Tensor
    step: Window


class Matched(NamedTuple):
    """The latents at which the scores are compared, at ``window.lower``, and the student's x0 of the same step."""

    x: Tensor
    x0: Tensor
    window: Window


class StageOneTrainer:
    """The networks and optimizers of one run, and its update."""

    def __init__(self, job: StageOneJob, run: Run) -> None:
        params, ranks = job.params, run.ranks
        self.params, self.ranks, self.shift = params, ranks, job.shift
        self.embeddings, self.rows = job.embeddings.open(), job.embeddings.open().rows_where("split", "train")
        self.latent_shape = latent_shape(job.teacher.build())
        self.draws = StepDraws(params, job.shift, self.latent_shape, len(self.rows))
        self.networks = build_networks(job.teacher, params, ranks)
        self.roles = self.networks.roles(read_prompts(job.empty.open(), [0], ranks.device))
        self.student_stepper = Stepper(
            self.networks.named_parameters(STUDENT).items(), params.student, params.student_updates, ranks
        )
        self.fake_stepper = Stepper(
            self.networks.named_parameters(FAKE_SCORE).items(), params.fake_score, params.loop.steps, ranks
        )
        self.gan = self._build_gan(job)
        sigmas = step_sigmas(max(params.step_counts), job.shift)
        self.regression = None
        if params.regression is not None and job.trajectories is not None:
            paths = job.trajectories.open()
            self.regression = Regression(params.regression, paths, self.embeddings, sigmas, params.batch_size, ranks)
        self.grid = SampleGrid(params.watch, self.embeddings, self.rows, sigmas, job.autoencoder, run)
        self.best = BestStudent(run)
        self.validation = None
        if job.validation is not None:
            self.validation = Validation(job.validation.open(), self.embeddings, sigmas, params.batch_size, ranks)

    def _build_gan(self, job: StageOneJob) -> LatentGan | None:
        params = self.params
        if params.latent_gan is None or job.real_latents is None:
            return None
        fake_score, real = cast(SD3Transformer2DModel, self.roles.fake_score), job.real_latents.open()
        settings = (params.latent_gan, params.fake_score, params.loop.steps, params.seed)
        return LatentGan(fake_score, real, self.embeddings, *settings, self.ranks)

    def states(self) -> dict[str, Stateful]:
        """Everything that a checkpoint has to hold."""
        states: dict[str, Stateful] = {"student_stepper": self.student_stepper, "fake_stepper": self.fake_stepper}
        if self.gan is not None:
            states |= {"latent_head": self.gan.head, "latent_head_stepper": self.gan.stepper}
        return {**self.networks.states(), **states, "best": self.best}

    def describe(self, step: int) -> str:
        """The seed and the prompts of a step, for messages."""
        rows = self.rows[self.draws.draw(step).rows.numpy()].tolist()
        return f"seed {self.params.seed}, rows {rows} of the prompt embeddings"

    def update(self, step: int) -> dict[str, float]:
        """One update of the fake score and, when it is due, one of the student; this rank's part of every value."""
        batch, size = self.batch(step), self.params.micro_batch_size
        count, is_whole = self.params.batch_size, size is None or size == len(batch.draws.rows)
        student_is_due = (step + 1) % self.params.fake_updates == 0
        waiting: dict[int, Start | Matched] = {}  # by first row, what the student's update goes on from

        def train_fake_score(rows: slice, weight: float) -> Means:
            part = batch.part(rows)
            start = self.roll_out(part)
            with torch.set_grad_enabled(student_is_due and is_whole):
                matched = self.take_step(start, part)
            waiting[rows.start] = matched if is_whole else start
            return self.fake_score_backward(matched, part, rows, step, weight)

        def train_student(rows: slice, weight: float) -> Means:
            part, found = batch.part(rows), waiting.pop(rows.start)
            matched = found if isinstance(found, Matched) else self.take_step(found, part)
            means = self.student_backward(matched, part, weight)
            if self.regression is not None:
                means["regression_loss"] = self.regression.backward(self.roles.student, rows, step, weight)
            return means

        means = accumulate(train_fake_score, count, size, self.ranks)
        shared = self.apply_fake_score()
        if student_is_due:
            means = accumulate(train_student, count, size, self.ranks) | means
            shared = self.apply_student() | shared
        if self.params.watch.is_due(step, self.params.loop.steps):
            shared |= self.watch(step)
        return self.ranks.part(count, means, shared)

    def batch(self, step: int) -> StepBatch:
        """What this rank needs of one step's draws."""
        drawn, levels = self.draws.draw(step), self.draws.levels(step).to(self.ranks.device)
        share, guidance = self.ranks.share(len(drawn.rows)), self.params.guidance
        return StepBatch(
            draws=drawn.share(share, self.ranks.device),
            levels=levels,
            depth=int(drawn.steps.max()),
            prompts=read_prompts(self.embeddings, self.rows[drawn.rows[share].numpy()], self.ranks.device),
            guided=is_guided(drawn.sigma[share], guidance.alpha, guidance.axis, self.shift),
        )

    def watch(self, step: int) -> dict[str, float]:
        """Sample the fixed grid from the student, and the validation plan from the one that would be saved."""
        values = {"grid_diversity": self.grid.sample(self.roles.student, self.latent_shape, step)}
        if self.validation is not None:
            with self.networks.averaged() as student:
                distance = values["validation_distance"] = self.validation.distance(student)
            self.best.offer(step + 1, distance, self.networks.save_student)
        return values

    def roll_out(self, batch: StepBatch) -> Start:
        """Where each sample's own step starts."""
        draws = batch.draws
        with self.ranks.autocast():
            return roll_out(self.roles.student, draws.noise, draws.steps, batch.levels, batch.prompts, batch.depth)

    def take_step(self, start: Start, batch: StepBatch) -> Matched:
        """The forward of each sample's own step, the only one that may carry a gradient."""
        with self.ranks.autocast():
            velocity = predict_velocity(self.roles.student, start.x, start.step.upper, batch.prompts)
        x0 = velocity_to_x0(velocity, start.x, start.step.upper)
        x = x0 if self.params.matched == "x0" else euler_step(start.x, velocity, start.step.upper, start.step.lower)
        return Matched(x, x0.detach(), matching_window(start.step, self.params.sigma_range, self.params.matched))

    def fake_score_backward(self, matched: Matched, batch: StepBatch, rows: slice, step: int, weight: float) -> Means:
        """The gradients of the fake score, and of the latent GAN's head with it; means over samples.

        Args:
            matched: The student's samples.
            batch: The prompts and draws of this rank's rows.
            rows: Which rows they are, for the draws of the latent GAN.
            step: The number of the update.
            weight: The factor of the loss.

        Returns:
            Losses and watched errors by name, as means over the rows.
        """
        gan, draws, means = self.gan, batch.draws, Means()
        watching: AbstractContextManager[list[Tensor]] = (
            nullcontext([]) if gan is None else last_features(gan.fake_score)
        )
        with self.ranks.autocast():
            with watching as tokens:
                network = self.roles.fake_score
                scored = fake_score_loss(network, matched, batch.prompts, draws.fake_sigma, draws.fake_noise)
            loss = scored.loss
            if gan is not None:
                term = gan.fake_score_term(tokens[0], draws.fake_sigma, step, self.params.batch_size, rows)
                loss, means["latent_head_loss"] = loss + term, float(term.detach())
        (loss * weight).backward()
        watched = by_sigma("fake_score_error", scored.by_sample, draws.fake_sigma)
        return {"fake_score_loss": float(scored.loss.detach()), **means, **watched}

    def apply_fake_score(self) -> dict[str, float]:
        """Step the fake score, and the latent GAN's head with it; gradient norms."""
        norms = {"fake_score_grad_norm": self.fake_stepper.apply()}
        if self.gan is not None:
            norms["latent_head_grad_norm"] = self.gan.stepper.apply()
        return norms

    def student_backward(self, matched: Matched, batch: StepBatch, weight: float) -> Means:
        """The gradients of the student; means over samples."""
        gan, scale, draws = self.gan, self.params.guidance.scale, batch.draws
        means = {"guided_share": float(batch.guided.float().mean())}
        with self.ranks.autocast():
            scored = student_loss(
                self.roles, matched, batch.prompts, draws.sigma, batch.guided, scale, draws.student_noise
            )
            loss = scored.loss
            if gan is not None:
                lower = matched.window.lower
                term = gan.student_term(matched.x, lower, draws.sigma, draws.student_noise, batch.prompts)
                loss, means["latent_gan_loss"] = loss + term, float(term.detach())
        self.networks.before_backward(STUDENT)
        (loss * weight).backward()
        watched = by_sigma("score_gap", scored.by_sample, draws.sigma)
        return {"student_loss": float(scored.loss.detach()), **means, **watched}

    def apply_student(self) -> dict[str, float]:
        """Step the student; its gradient norm."""
        norm = self.student_stepper.apply()
        if self.gan is not None:  # its term left gradients in the fake score
            self.fake_stepper.discard()
            self.gan.stepper.discard()
        self.networks.update_average()
        return {"student_grad_norm": norm}


@torch.no_grad()
def roll_out(student: Network, noise: Tensor, steps: Tensor, levels: Tensor, prompts: PromptBatch, depth: int) -> Start:
    """Take each sample to the start of its own step, without running any step beyond it.

    Args:
        student: The network that samples.
        noise: Where sampling starts, (B, C, H, W).
        steps: Each sample's step, (B,).
        levels: The levels of the steps, (K + 1,).
        prompts: The captions' embeddings, B rows.
        depth: The largest step of the whole batch: sharded ranks call the network equally often, if need be on one row
            whose result is dropped.

    Returns:
        Each sample's latent at the start of its step, and the levels of that step.
    """
    x = noise.clone()
    for k in range(depth):
        rows = (steps > k).nonzero()[:, 0]
        joined = rows if len(rows) else torch.zeros(1, dtype=torch.int64, device=x.device)
        velocity = predict_velocity(student, x[joined], float(levels[k]), prompts[joined])
        if len(rows):
            x[rows] = euler_step(x[rows], velocity, float(levels[k]), float(levels[k + 1]))
    return Start(x, Window(levels[steps].float(), levels[steps + 1].float()))


def fake_score_loss(
    fake_score: Network, matched: Matched, prompts: PromptBatch, sigma: Tensor, noise: Tensor
) -> Scored:
    """Flow matching on the student's own distribution: re-noise what it made, regress (x_sigma - x0) / sigma.

    Args:
        fake_score: The network that learns.
        matched: The student's latents and their x0, of which no gradient is taken.
        prompts: The captions' embeddings, B rows.
        sigma: The levels to which they are re-noised, (B,).
        noise: What takes them there, like the latents.

    Returns:
        The loss, and each sample's squared error.
    """
    x_sigma = renoise(matched.x.detach(), matched.window.lower, sigma, noise)
    target = x0_to_velocity(matched.x0, x_sigma, sigma)
    velocity = predict_velocity(fake_score, x_sigma, sigma, prompts)
    return Scored(mse_loss(velocity, target), (velocity - target).detach().square().mean((1, 2, 3)))


def student_loss(
    roles: Roles,
    matched: Matched,
    prompts: PromptBatch,
    sigma: Tensor,
    guided: Tensor,
    guidance_scale: float,
    noise: Tensor,
) -> Scored:
    """Distribution matching: both scores take one Euler step from sigma back to the level of the student's latents.

    Args:
        roles: Teacher and fake score.
        matched: The student's latents, with their gradient.
        prompts: The captions' embeddings, B rows.
        sigma: The levels to which the latents are re-noised, (B,).
        guided: The samples that the teacher guides, bool (B,), on the CPU.
        guidance_scale: The teacher's guidance there.
        noise: What takes the latents to sigma, like them.

    Returns:
        The loss, and each sample's mean absolute difference of the two scores' steps.
    """
    lower = matched.window.lower
    with torch.no_grad():
        x_sigma = renoise(matched.x, lower, sigma, noise)
        real = predict_guided_velocity(roles.teacher, x_sigma, sigma, prompts, roles.empty, guidance_scale, guided)
        fake = predict_velocity(roles.fake_score, x_sigma, sigma, prompts)
        x_real = euler_step(x_sigma, real, sigma, lower)
        x_fake = euler_step(x_sigma, fake, sigma, lower)
    return Scored(distribution_matching_loss(matched.x, x_real, x_fake), (x_real - x_fake).abs().mean((1, 2, 3)))
