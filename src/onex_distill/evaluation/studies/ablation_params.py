"""Parameters of the ablation: the run that is varied, the variations, and the seeds."""

from collections.abc import Iterator
from typing import NamedTuple, Self

from pydantic import Field, PositiveInt, model_validator

from onex_distill.distill.stage_one.params import GuidanceParams, ImportanceParams, Preset, StageOneParams
from onex_distill.flow.guidance import Axis
from onex_distill.parameters import Params, Seed

VARIED = ["alpha", "importance", "steps", "alpha_axis", "importance_axis"]
TARGET = ["alpha", "alpha_axis"]  # what decides which teacher a student should become


class Variation(Params):
    """One setting: the guidance threshold, the importance curve, the student's steps, and the axis of either curve."""

    alpha: float = Field(ge=0, le=1)
    importance: Preset
    steps: PositiveInt
    alpha_axis: Axis
    importance_axis: Axis


class Setting(NamedTuple):
    """A variation with its seed, and the training that it stands for."""

    name: str
    steps: int
    columns: dict[str, float | int | str]
    training: StageOneParams


class AblationParams(Params):
    """``training`` is the run that every one of ``variations`` changes.

    Its runs have no validation, so the last student of each is sampled.
    """

    training: StageOneParams
    variations: tuple[Variation, ...]
    seeds: tuple[Seed, ...]

    @model_validator(mode="after")
    def _last_student(self) -> Self:
        if self.training.select != "last":
            raise ValueError(f"training.select {self.training.select!r} needs a validation, and here is none; set last")
        return self

    def settings(self) -> Iterator[Setting]:
        """Every variation with every seed; all variations of a first seed come before those of the next."""
        for seed in self.seeds:
            for variation in self.variations:
                columns = {**variation.model_dump(), "seed": seed}
                name = "-".join(f"{column}_{value}" for column, value in columns.items())
                yield Setting(name, variation.steps, columns, _changed(self.training, variation, seed))

    def targets(self) -> list[tuple[float, Axis]]:
        """Alpha and its axis of every teacher that some student should become, in rising order."""
        return sorted({(variation.alpha, variation.alpha_axis) for variation in self.variations})


def _changed(training: StageOneParams, variation: Variation, seed: int) -> StageOneParams:
    guidance, importance = training.guidance, training.importance
    return training.model_copy(
        update={
            "seed": seed,
            "num_inference_steps": variation.steps,
            "guidance": GuidanceParams(scale=guidance.scale, alpha=variation.alpha, axis=variation.alpha_axis),
            "importance": ImportanceParams(
                curve=variation.importance, axis=variation.importance_axis, smoothing=importance.smoothing
            ),
        }
    )
