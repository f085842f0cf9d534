"""Nodes of the reuse pipeline."""

from typing import Annotated

import pandas as pd
import plotly.express as px
from plotly.graph_objects import Figure
from pydantic import Field, PositiveInt

from onex_distill.cache.reuse_error import mean_reuse_errors
from onex_distill.models.teacher import TeacherFolder
from onex_distill.parameters import Params
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable


class ReuseParams(Params):
    """Steps of the sampling (at least two, to be compared), images, images a batch, and bands beside single blocks."""

    num_inference_steps: Annotated[int, Field(ge=2)]
    images: PositiveInt
    batch_size: PositiveInt
    bands: tuple[tuple[int, int], ...]


def measure_reuse_error(
    teacher: TeacherFolder,
    stage_one: ModelFolder,
    stage_two: ModelFolder,
    embeddings: TensorTable,
    plan: pd.DataFrame,
    params: ReuseParams,
) -> pd.DataFrame:
    """Reuse errors of teacher and students on the students' schedule, unguided, from the same captions and noise."""
    models = {"teacher": teacher.transformer, "student_stage_one": stage_one, "student_stage_two": stage_two}
    # spread over the plan, whose rows are grouped by caption
    rows = plan.iloc[:: max(1, len(plan) // params.images)].head(params.images)
    tables = []
    for name, folder in models.items():
        table = mean_reuse_errors(
            folder.load().eval(),
            embeddings,
            rows,
            teacher.shift,
            params.num_inference_steps,
            params.bands,
            params.batch_size,
        )
        table.insert(0, "model", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def plot_reuse_error(table: pd.DataFrame) -> Figure:
    """Reuse error against block index, a panel a stream, a line a model and step; bands are left to the table."""
    blocks = table[table["stop"] == table["block"] + 1]
    lines = {"x": "block", "y": "reuse_error", "color": "model", "line_dash": "step", "facet_col": "stream"}
    return px.line(blocks, **lines, markers=True, height=450)
