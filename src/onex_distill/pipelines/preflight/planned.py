"""What is known of a run before it starts: its nodes, what they read, and their parameters."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from pydantic import BaseModel

from onex_distill.datasets import CaptionsDataset, TeacherDataset
from onex_distill.engine.compute import ComputeParams
from onex_distill.models.teacher import TeacherFolder
from onex_distill.pipelines.shared.params import CaptionSetParams, PromptCountsParams
from onex_distill.storage.prompt_table import build_prompt_table, join_prompts

P = TypeVar("P", bound=BaseModel)


class Planned:
    """The selected nodes of a run and the catalog. What is loaded is loaded once."""

    def __init__(self, pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> None:
        self.pipeline, self.catalog = pipeline, catalog
        self.nodes = {node.name: node for node in pipeline.nodes}
        self.datasets = pipeline.datasets()

    @property
    def inputs(self) -> list[str]:
        """The datasets that have to be on disk when the run starts."""
        return sorted(name for name in self.pipeline.inputs() if not name.startswith(("params:", "parameters")))

    def path(self, name: str) -> Path | None:
        """Where a dataset is, or will be, on this machine's disk."""
        filepath = getattr(self.catalog.get(name), "_filepath", None)
        return None if filepath is None else Path(filepath)

    @cached_property
    def teachers(self) -> dict[str, TeacherFolder]:
        """Every teacher that the run reads, by the name of its dataset; a published one is fetched for this."""
        names = [name for name in self.inputs if isinstance(self.catalog.get(name), TeacherDataset)]
        return {name: self.catalog.load(name) for name in names}

    @property
    def teacher(self) -> TeacherFolder | None:
        """The teacher that is distilled, if the run reads it."""
        return self.teachers.get("teacher")

    @cached_property
    def captions(self) -> dict[str, pd.DataFrame]:
        """Every captions file that the run reads as a prompt table. Raises ValueError for one that cannot be read."""
        names = [name for name in self.inputs if isinstance(self.catalog.get(name), CaptionsDataset)]
        return {name: build_prompt_table(self.catalog.load(name)) for name in names}

    @cached_property
    def prompts(self) -> pd.DataFrame | None:
        """The prompt table of the run: that of its captions, or the stored one."""
        if "prepare_prompts" not in self.nodes:
            return self.catalog.load("prompts") if "prompts" in self.inputs else None
        counts: PromptCountsParams = self.catalog.load("params:prompt_counts")
        heldout: CaptionSetParams = self.catalog.load("params:evaluation_set")
        kept = {"train": counts.train, "reference": counts.reference, "heldout": heldout.captions}
        return join_prompts(self.captions["captions"], self.captions["evaluation_captions"], kept, counts.seed)

    @cached_property
    def compute(self) -> ComputeParams | None:
        """Where the run's jobs will run."""
        return next((params for _, params in self.parameters(ComputeParams)), None)

    def parameters(self, kind: type[P]) -> Iterator[tuple[str, P]]:
        """Every parameter group of one kind that a node of the run reads, nested ones too, by its dotted name."""
        for name in sorted(self.pipeline.inputs()):
            if name.startswith("params:"):
                yield from _groups(name.removeprefix("params:"), self.catalog.load(name), kind)

    def images(self, sampled: str, split: str) -> int | None:
        """How many images of the caption set ``<sampled>_set`` the run will sample; None where that is not its plan."""
        if f"plan_{sampled}" not in self.nodes or self.prompts is None:
            return None
        params: CaptionSetParams = self.catalog.load(f"params:{sampled}_set")
        return min(params.captions, int((self.prompts["split"] == split).sum())) * params.images_per_caption


def _groups(name: str, value: Any, kind: type[P]) -> Iterator[tuple[str, P]]:
    if isinstance(value, kind):
        yield name, value
    if isinstance(value, BaseModel):
        for field in type(value).model_fields:
            yield from _groups(f"{name}.{field}", getattr(value, field), kind)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _groups(f"{name}.{number}", item, kind)
