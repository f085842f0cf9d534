"""Parameters of cache co-training."""

from typing import Self

from pydantic import NonNegativeInt, PositiveInt, field_validator, model_validator

from onex_distill.cache.band_text import TypedSets
from onex_distill.cache.compensation import CompensationParams
from onex_distill.cache.plan import Bands, as_bands
from onex_distill.distill.stage_two.params import AdversarialParams
from onex_distill.distill.stage_two.schedule import Schedule
from onex_distill.engine.optimisation import OptimizerParams


class CotrainingParams(AdversarialParams):
    """An adversarial run of the cached path; ``compensation_warmup`` counts generator updates.

    ``candidates`` are sets of bands, half-open or as text (``1-4`` is [1, 5]), one of them drawn at random for every
    update; with one the student is specialised to it. An empty set runs every block. The first ``fitting_steps`` steps
    fit the compensation of all bands to the residuals that the student really adds, before the discriminator's first
    update; the paper has none of them. They share ``fitting_batches`` batches of ``fitting_batch_size`` samples. Where
    student and compensation learn together, the norm of both is what each is clipped by.
    """

    candidates: TypedSets
    compensation_function: CompensationParams
    compensation: OptimizerParams
    compensation_warmup: NonNegativeInt
    fitting_steps: NonNegativeInt
    fitting_batch_size: PositiveInt
    fitting_batches: PositiveInt

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Fitting, where there is any, has batches of its own."""
        return (self.batch_size, self.fitting_batch_size) if self.fitting_steps else (self.batch_size,)

    @property
    def schedule(self) -> Schedule:
        """Fitting first; then as stage two, with the compensation alone in the generator's first updates."""
        return Schedule(
            steps=self.loop.steps,
            fitting=self.fitting_steps,
            discriminator_warmup=self.discriminator_warmup,
            discriminator_updates=self.discriminator_updates if self.adversarial_weight else 0,
            compensation_warmup=self.compensation_warmup,
        )

    @model_validator(mode="after")
    def _something_to_fit(self) -> Self:
        if self.fitting_steps and self.compensation_function.kind == "identity":
            raise ValueError(f"fitting_steps {self.fitting_steps}: compensation identity has nothing to fit; set 0")
        if self.fitting_steps and self.num_inference_steps < 2:
            raise ValueError(f"fitting_steps {self.fitting_steps}: a single step reuses nothing to fit to; set 0")
        return self

    @field_validator("candidates")
    @classmethod
    def _have_bands(cls, candidates: tuple[Bands, ...]) -> tuple[Bands, ...]:
        if not any(candidates):
            raise ValueError("candidates holds no band; give it a set of bands, for example [[1, 5]], or as text 1-4")
        return tuple(as_bands(bands) for bands in candidates)
