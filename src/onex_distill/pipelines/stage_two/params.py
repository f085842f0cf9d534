"""Parameters of the reference images."""

from pydantic import PositiveInt

from onex_distill.parameters import Params, Seed


class ReferencesParams(Params):
    """How many reference images the reference generator makes, and from which noise."""

    seed: Seed
    count: PositiveInt
    num_inference_steps: PositiveInt
    batch_size: PositiveInt
