"""Cache co-training: stage two's losses on the cached path (paper, section on Distill-Cache co-training).

The first step stores what the bands add and the later ones reuse it through the compensation, which is fitted first,
then trained alone by the generator's losses, and then together with the student.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from onex_distill.cache.block_cache import BlockCache
from onex_distill.cache.compensation import Compensation, key_of
from onex_distill.cache.fitting import residual_loss
from onex_distill.cache.plan import Bands, CachePlan, reuse_after_first
from onex_distill.distill.cotraining.params import CotrainingParams
from onex_distill.distill.cotraining.path import CachedPath
from onex_distill.distill.cotraining.residuals import HELD_OUT, Residuals, ResidualSampler
from onex_distill.distill.stage_two.schedule import Phase
from onex_distill.distill.stage_two.trainer import AdversarialTrainer, Means, Values
from onex_distill.engine.checkpoint import Stateful
from onex_distill.engine.optimisation import Stepper
from onex_distill.engine.randomness import generator
from onex_distill.engine.ranks import Ranks
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.storage.model_folder import save_model

if TYPE_CHECKING:
    from onex_distill.distill.cotraining.job import CotrainingJob


class CotrainingTrainer(AdversarialTrainer):
    """Stage two's trainer with a cache on the student, and a compensation that learns too unless it has no weights."""

    params: CotrainingParams
    path: CachedPath

    def __init__(self, job: "CotrainingJob", ranks: Ranks) -> None:
        self.residuals: Residuals | None = None  # while the compensation is fitted
        super().__init__(job, ranks)

    def build_path(self) -> CachedPath:
        """The path with a new cache, on the student's blocks."""
        params, width = self.params, self.transformer.inner_dim
        compensation = Compensation(width, params.candidates, **params.compensation_function.model_dump())
        cache = BlockCache(self.transformer, self.plan(0), compensation.to(self.ranks.device)).attach()
        return CachedPath(cache, step_sigmas(params.num_inference_steps, self.job.shift), self.ranks)

    def make_steppers(self) -> None:
        """Stage two's, and the compensation's where it has weights."""
        super().make_steppers()
        counts, weights = self.schedule.counts, list(self.compensation.named_parameters())
        updates = counts[Phase.FITTING] + counts[Phase.WARM_UP] + counts[Phase.GENERATOR]
        self.compensation_stepper: Stepper | None = None
        if weights:
            self.compensation_stepper = Stepper(weights, self.params.compensation, updates, self.ranks)

    @property
    def compensation(self) -> Compensation:
        """The functions of all bands."""
        return self.path.cache.compensation

    def states(self) -> dict[str, Stateful]:
        """Stage two's, and the compensation's."""
        states = super().states()
        if self.compensation_stepper is not None:
            states |= {"compensation": self.compensation, "compensation_stepper": self.compensation_stepper}
        return states

    def plan(self, step: int) -> CachePlan:
        """The bands that one update reuses, the same on every rank."""
        candidates, draws = self.params.candidates, generator(self.params.seed, step, "bands")
        chosen = candidates[int(torch.randint(len(candidates), (), generator=draws))]
        return reuse_after_first(chosen, self.params.num_inference_steps)

    def batch_size(self, step: int) -> int:
        """Fitting has batches of its own size."""
        params, is_fitting = self.params, self.schedule.phase(step) is Phase.FITTING
        return params.fitting_batch_size if is_fitting else params.batch_size

    def describe(self, step: int) -> str:
        """The seed and the rows of a step, for messages."""
        if self.schedule.phase(step) is Phase.FITTING:
            return f"seed {self.params.seed}, fitting to the student's residuals"
        return super().describe(step)

    def update(self, step: int) -> dict[str, float]:
        """Fitting, or one of stage two's updates on the plan of the step."""
        if self.schedule.phase(step) is Phase.FITTING:
            return self.ranks.part(self.batch_size(step), *self.fit_compensation(step))
        self.residuals = None
        self.path.cache.use(self.plan(step))
        return super().update(step)

    def fit_compensation(self, step: int) -> Values:
        """One step of the compensation of all bands towards the residuals of plain sampling.

        ``held_out_residual_loss`` is the error, now and then, on captions and noise that no step fits to.
        """
        stepper, params, levels = self.compensation_stepper, self.params, self.path.levels
        if stepper is None:
            raise RuntimeError("there is no compensation to fit")
        residuals = self.residuals = self.residuals or self.sample_residuals()
        count = self.batch_size(step)
        batches = residuals.pool.chosen(step, count)[self.ranks.share(count)]

        def backward(rows: slice, weight: float) -> Means:
            with self.ranks.autocast():
                loss = residual_loss(self.compensation, residuals.pool.rows(batches, rows), levels)
            (loss * weight).backward()
            return {"residual_loss": float(loss.detach())}

        means = self.in_parts(step, backward)
        norms = {"compensation_grad_norm": stepper.apply()}
        if (step + 1) % params.loop.log_every == 0 or step + 1 == params.fitting_steps:
            with torch.no_grad(), self.ranks.autocast():
                means["held_out_residual_loss"] = float(residual_loss(self.compensation, residuals.held_out, levels))
        return means, norms

    def sample_residuals(self) -> Residuals:
        """The student's, as the weights are now: a pool for fitting, and a batch of the references' captions."""
        self.path.cache.reset()
        sampler = ResidualSampler(self.transformer, self.path.levels, self.compensation.bands, self.params, self.ranks)
        held_out = self.references.batch(0, self.params.fitting_batch_size).prompts
        return Residuals(sampler.pool(self.job.embeddings.open()), sampler.sample(held_out, HELD_OUT))

    def apply_generator(self, phase: Phase) -> dict[str, float]:
        """The compensation alone while it warms up, then both, clipped by the norm of both together."""
        learner = self.compensation_stepper
        if learner is None:
            return super().apply_generator(phase) if phase is Phase.GENERATOR else self._rest()
        norms = {"compensation_grad_norm": learner.reduce(self.compensation_rests)}
        if phase is Phase.WARM_UP:
            learner.take(norms["compensation_grad_norm"])
            return norms | self._rest()
        norms["student_grad_norm"] = self.student_stepper.reduce(self.student_rests)
        together = math.hypot(*norms.values())
        learner.take(together)
        self.student_stepper.take(together)
        return norms

    def _rest(self) -> dict[str, float]:
        """Leave the student as it is."""
        self.student_stepper.discard()
        return {}

    def student_rests(self, name: str) -> bool:
        """Whether a parameter belongs to a block that the last step skips."""
        blocks = (block for band in self._skipped_bands() for block in range(*band))
        return any(f"transformer_blocks.{block}." in name for block in blocks)

    def compensation_rests(self, name: str) -> bool:
        """Whether a parameter belongs to a band that the last step computes, or does not know."""
        return not any(f".{key_of(band)}." in name for band in self._skipped_bands())

    def _skipped_bands(self) -> Bands:
        plan = self.path.cache.plan
        return tuple(band for band, computes in zip(plan.bands, plan.computes[-1], strict=True) if not computes)

    def save(self, folder: Path) -> None:
        """Write the student, merged, and the compensation."""
        super().save(folder)
        if self.ranks.is_first:
            save_model(self.compensation, folder / "compensation")
