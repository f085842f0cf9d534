"""Parameters of the band search and of the timing of fronts."""

from typing import Self

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from onex_distill.cache.band_text import TypedBands
from onex_distill.parameters import Params, Seed


class BandSearchParams(Params):
    """Bands that skip enough blocks for a budget, in at most ``max_bands`` separated runs.

    The budget is either ``nfe``, evaluations that count blocks, or ``nfe_flops``, evaluations that count FLOPs.
    Damage is predicted from the latents of ``images`` samples; then plain caching of the ``measured`` most promising
    sets of bands is measured, beside the ``fixed`` one and ``random`` ones.
    """

    nfe: PositiveFloat | None
    nfe_flops: PositiveFloat | None
    num_inference_steps: PositiveInt
    max_bands: PositiveInt
    images: PositiveInt
    measured: PositiveInt
    fixed: TypedBands
    random: NonNegativeInt
    seed: Seed

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.nfe is None) == (self.nfe_flops is None):
            raise ValueError(
                f"the budget is either nfe or nfe_flops, got nfe {self.nfe} and nfe_flops {self.nfe_flops}; "
                "set one of them and make the other null"
            )
        return self

    @property
    def budget(self) -> tuple[str, float]:
        """The name of the count that is given, and its value."""
        given = {"nfe": self.nfe, "nfe_flops": self.nfe_flops}
        return next((count, value) for count, value in given.items() if value is not None)


class LatencyParams(Params):
    """Steps without guidance, timed rounds over all budgets, and images per batch."""

    num_inference_steps: PositiveInt
    rounds: PositiveInt
    batch_size: PositiveInt
