"""Parameters of the recovery pipeline."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from onex_distill.cache.plan import Bands
from onex_distill.distill.cotraining.params import CotrainingParams
from onex_distill.distill.stage_two.params import AdversarialParams
from onex_distill.parameters import Params, Seed


class RecoveryParams(Params):
    """The trainings that are compared, all of the same single set of bands, each with every seed.

    ``alone`` trains the compensation of a student that stays as it is; ``cotraining`` trains both; ``uncached`` refines
    the student by the same adversarial rules without a cache. Without seeds there would be no spread: give two or more.
    """

    seeds: Annotated[tuple[Seed, ...], Field(min_length=2)]
    alone: CotrainingParams
    cotraining: CotrainingParams
    uncached: AdversarialParams

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        if len(self.alone.candidates) != 1 or self.alone.candidates != self.cotraining.candidates:
            raise ValueError(
                "alone.candidates and cotraining.candidates must name the same single set of bands, "
                "for example [[[1, 5]]]"
            )
        steps = {name: getattr(self, name).num_inference_steps for name in ("alone", "cotraining", "uncached")}
        if len(set(steps.values())) > 1:
            raise ValueError(f"num_inference_steps must be the same in every training, got {steps}")
        if self.alone.compensation_warmup < self.alone.loop.steps:
            raise ValueError(
                f"alone.compensation_warmup {self.alone.compensation_warmup} would train the student too after that "
                f"many updates; give it at least loop.steps {self.alone.loop.steps}"
            )
        return self

    @property
    def bands(self) -> Bands:
        """The bands that are reused after the first step."""
        return self.alone.candidates[0]
