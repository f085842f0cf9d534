"""Parameters of methods and of their evaluation."""

from pydantic import Field, PositiveFloat, PositiveInt

from onex_distill.cache.plan import Bands, effective_nfe, reuse_after_first
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.parameters import Params, Seed

NFE = "{nfe}"


class MethodParams(Params):
    """A row of the metrics table: its name, its steps, its guidance (scale 1 is none), and with a cache its budget.

    Steps that start from a sigma above ``alpha`` are not guided. ``nfe`` chooses among the sets of bands that a
    compensation was trained for; with none, the first is reused. ``{nfe}`` in the name of a student with a cache stands
    for the evaluations that its bands leave (``named``).
    """

    name: str
    steps: PositiveInt
    guidance_scale: PositiveFloat
    alpha: float = Field(ge=0, le=1)
    nfe: PositiveFloat | None

    @classmethod
    def unguided(cls, name: str, steps: int) -> "MethodParams":
        """A student's row: no guidance, and the first set of bands."""
        return cls(name=name, steps=steps, guidance_scale=1.0, alpha=1.0, nfe=None)

    def named(self, bands: Bands, num_layers: int) -> "MethodParams":
        """The method with ``{nfe}`` in its name replaced by what reusing ``bands`` of ``num_layers`` blocks leaves."""
        nfe = effective_nfe(reuse_after_first(bands, self.steps), num_layers)
        return self.model_copy(update={"name": self.name.replace(NFE, f"{nfe:.2f}")})

    def guided_steps(self, shift: float) -> int:
        """How many steps evaluate the empty prompt too."""
        if self.guidance_scale <= 1:
            return 0
        return int((step_sigmas(self.steps, shift)[:-1] <= self.alpha).sum())


class EvaluationParams(Params):
    """Images per batch when sampling, the first noise seed of the null row, and captions in grids."""

    batch_size: PositiveInt
    null_seed: Seed
    grid_captions: PositiveInt


class ReportParams(Params):
    """What the report judges by: the student's row, the aims of its evaluation, and the teacher of published rows.

    The row is named by its key of ``methods``, or as it is shown. ``meaningless`` marks runs at test sizes. Aims are
    differences to the teacher: alignment in points, diversity as a ratio; None where nothing is aimed at.
    """

    student: str
    published: str | None
    meaningless: bool
    alignment_points: float | None
    diversity_ratio: PositiveFloat | None
