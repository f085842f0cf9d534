"""Parameters of the evaluation pipeline."""

from pydantic import PositiveFloat, PositiveInt

from onex_distill.parameters import Params


class MethodParams(Params):
    """A row of the metrics table: its name, its steps, and its guidance (1 is none)."""

    name: str
    steps: PositiveInt
    guidance_scale: PositiveFloat


class EvaluationParams(Params):
    """Images a batch when sampling and measuring, neighbours for precision and recall, captions in the grid."""

    batch_size: PositiveInt
    neighbours: PositiveInt
    grid_captions: PositiveInt
