"""Parameters of the reference images."""

from pydantic import PositiveInt

from onex_distill.parameters import Params


class ReferencesParams(Params):
    """How many reference images the reference generator makes, and from which noise."""

    seed: int
    count: PositiveInt
    num_inference_steps: PositiveInt
    batch_size: PositiveInt
