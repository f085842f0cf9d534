"""Parameters of the pareto pipeline."""

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from onex_distill.models.cache_plan import Bands
from onex_distill.parameters import Params


class BandSearchParams(Params):
    """Bands that skip enough blocks for a budget, in at most ``max_bands`` separated runs.

    Damage is predicted from ``images`` samples; then plain caching of the ``measured`` most promising sets of bands is
    measured, beside the ``fixed`` one and ``random`` ones.
    """

    nfe: PositiveFloat
    num_inference_steps: PositiveInt
    max_bands: PositiveInt
    images: PositiveInt
    measured: PositiveInt
    fixed: Bands
    random: NonNegativeInt
    seed: int
