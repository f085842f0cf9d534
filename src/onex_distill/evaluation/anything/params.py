"""What is scored that was not made here."""

from pathlib import Path
from typing import Any, Self

from pydantic import PositiveFloat, PositiveInt, field_validator, model_validator

from onex_distill.parameters import Params, Seed


class PipelineParams(Params):
    """A diffusers pipeline: its row, a folder or hub id, and how it samples; None keeps the pipeline's own setting."""

    name: str
    source: str
    steps: PositiveInt | None
    guidance_scale: PositiveFloat | None
    scheduler: str | None


class ScoreParams(Params):
    """Folders of images with captions, and pipelines that are sampled on ``captions`` from the same seeds.

    ``reference`` names the row that distances are to. ``skip_unreadable`` leaves out files that cannot be read instead
    of refusing the folder. Raises ValueError for two rows of one name.
    """

    images: tuple[Path, ...]
    pipelines: tuple[PipelineParams, ...]
    captions: Path | None
    images_per_caption: PositiveInt
    seed: Seed
    batch_size: PositiveInt
    reference: str | None
    skip_unreadable: bool

    @field_validator("images", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value

    @property
    def names(self) -> list[str]:
        """The rows of the table, in order."""
        return [*(folder_name(folder) for folder in self.images), *(one.name for one in self.pipelines)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise ValueError(f"two rows would be called {repeated[0]!r}; rename a folder or a pipeline")
        if self.pipelines and self.captions is None:
            raise ValueError("score.pipelines are sampled on score.captions; name a file of captions")
        return self


def folder_name(folder: Path) -> str:
    """The row of a folder."""
    return folder.resolve().name
