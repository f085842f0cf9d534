"""Every choice of stage one."""

from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from onex_distill.distill.stage_one.latent_gan import LatentGanParams
from onex_distill.distill.stage_one.watching import WatchParams
from onex_distill.engine.loop import LoopParams
from onex_distill.engine.optimisation import OptimizerParams
from onex_distill.flow.guidance import Axis
from onex_distill.flow.sigma_draws import PRESETS, Knots, MatchedLatent, SigmaRange
from onex_distill.models.lora import LoraParams
from onex_distill.parameters import Params, Seed

Preset = Literal["uniform", "c"]
Curve = Preset | Knots


class GuidanceParams(Params):
    """The real score's guidance: its scale, and the level above which it is switched off (paper, eq. 4)."""

    scale: PositiveFloat
    alpha: float = Field(ge=0, le=1)
    axis: Axis


class ImportanceParams(Params):
    """The density from which the student update draws sigma: a preset, or knots (1000 (1 - axis), density).

    The published curve lives on u, whereas alpha, ``GuidanceParams``, lives on sigma.
    """

    curve: Curve
    axis: Axis
    smoothing: NonNegativeFloat

    @model_validator(mode="after")
    def _rising_positive_knots(self) -> Self:
        positions, densities = zip(*self.knots, strict=True) if self.knots else ((), ())
        rising = all(a < b for a, b in pairwise(positions))
        if len(positions) < 2 or not rising or min(densities) <= 0:
            raise ValueError(f"curve {self.curve!r} needs two or more knots, rising in position, of positive density")
        return self

    @property
    def knots(self) -> Knots:
        """The curve's knots."""
        return PRESETS[self.curve] if isinstance(self.curve, str) else self.curve


class RegressionParams(Params):
    """A term beside distribution matching: every step of the student learns where the teacher's many steps lead.

    The teacher, guided as the real score is, follows ``trajectories`` paths of training captions down to x0; the
    student starts its steps on them. ``seed`` is of captions and noise, ``weight`` of the loss beside the other.
    """

    weight: PositiveFloat
    trajectories: PositiveInt
    seed: Seed


class StageOneParams(Params):
    """One distribution-matching run.

    ``micro_batch_size`` rows of a rank are in memory at once (null: all); fewer than all cost one more forward of the
    student per row. ``num_inference_steps`` may name several K, of which every update draws one. ``sigma_range``
    re-noises within the trajectory's step or anywhere above it; ``matched`` compares the scores at the step's end or at
    its x0. The student is updated after every ``fake_updates`` updates of the fake score, each a step of the loop. With
    ``parametrization`` full the roles are three copies of the transformer; with shared_backbone student and fake score
    are adapters (``lora``) on the frozen teacher. ``regression`` is a term that the paper has not; null leaves it out.
    ``latent_gan`` is DMD2's adversarial term. ``select`` names the student that goes on: the last, or the best by
    validation.
    """

    seed: Seed
    num_inference_steps: PositiveInt | tuple[PositiveInt, ...]
    batch_size: PositiveInt
    micro_batch_size: PositiveInt | None
    guidance: GuidanceParams
    importance: ImportanceParams
    sigma_range: SigmaRange
    matched: MatchedLatent
    fake_updates: PositiveInt
    parametrization: Literal["full", "shared_backbone"]
    lora: LoraParams
    gradient_checkpointing: bool
    regression: RegressionParams | None
    latent_gan: LatentGanParams | None
    student: OptimizerParams
    fake_score: OptimizerParams
    ema_decay: float = Field(ge=0, lt=1)
    watch: WatchParams
    select: Literal["last", "best"]
    loop: LoopParams

    @model_validator(mode="after")
    def _some_student_update(self) -> Self:
        if not self.step_counts:
            raise ValueError("num_inference_steps () names no number of steps; give one, or several")
        if self.fake_updates > self.loop.steps:
            raise ValueError(
                f"fake_updates {self.fake_updates} leaves no student update in {self.loop.steps} steps; lower it"
            )
        if self.latent_gan and self.parametrization != "full":
            raise ValueError(f"latent_gan needs a fake score of its own, not parametrization {self.parametrization}")
        if self.regression and len(self.step_counts) > 1:
            raise ValueError(
                f"regression follows the teacher at one schedule's levels, not at those of {self.step_counts} steps; "
                "give one num_inference_steps, or set regression to null"
            )
        return self

    @property
    def step_counts(self) -> tuple[int, ...]:
        """Every K that an update may draw."""
        counts = self.num_inference_steps
        return (counts,) if isinstance(counts, int) else counts

    @property
    def student_updates(self) -> int:
        """Student updates of the whole run."""
        return self.loop.steps // self.fake_updates
