"""Parameters of the evaluation pipeline."""

from pydantic import PositiveFloat, PositiveInt

from onex_distill.parameters import Params


class MethodParams(Params):
    """A row of the metrics table: its name, its steps, its guidance (1 is none), and with a cache its budget.

    ``nfe`` chooses among the sets of bands that a compensation was trained for; with none, the first is reused.
    """

    name: str
    steps: PositiveInt
    guidance_scale: PositiveFloat
    nfe: PositiveFloat | None


class EvaluationParams(Params):
    """Images a batch when sampling and measuring, neighbours for precision and recall, captions in the grid."""

    batch_size: PositiveInt
    neighbours: PositiveInt
    grid_captions: PositiveInt
