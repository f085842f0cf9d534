"""Parameters of methods and of their evaluation."""

from pydantic import Field, PositiveFloat, PositiveInt

from onex_distill.flow.sigmas import step_sigmas
from onex_distill.parameters import Params


class MethodParams(Params):
    """A row of the metrics table: its name, its steps, its guidance (scale 1 is none), and with a cache its budget.

    Steps that start from a sigma above ``alpha`` are not guided. ``nfe`` chooses among the sets of bands that a
    compensation was trained for; with none, the first is reused.
    """

    name: str
    steps: PositiveInt
    guidance_scale: PositiveFloat
    alpha: float = Field(default=1.0, ge=0, le=1)
    nfe: PositiveFloat | None = None

    def guided_steps(self, shift: float) -> int:
        """How many steps evaluate the empty prompt too."""
        if self.guidance_scale <= 1:
            return 0
        return int((step_sigmas(self.steps, shift)[:-1] <= self.alpha).sum())


class EvaluationParams(Params):
    """Images per batch when sampling and measuring, neighbours for precision and recall, captions in the grid."""

    batch_size: PositiveInt
    neighbours: PositiveInt
    grid_captions: PositiveInt
