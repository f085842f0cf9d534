"""Reuse errors of teacher and students on the students' schedule."""

from typing import Annotated

import pandas as pd
from pydantic import Field, PositiveInt

from onex_distill.cache.band_text import TypedBands
from onex_distill.cache.reuse_error import mean_reuse_errors
from onex_distill.evaluation.inputs import SamplingInputs
from onex_distill.parameters import Params
from onex_distill.storage.model_folder import ModelFolder


class ReuseParams(Params):
    """Steps of the sampling (two or more, to be compared), images, images per batch, and bands beside single blocks."""

    num_inference_steps: Annotated[int, Field(ge=2)]
    images: PositiveInt
    batch_size: PositiveInt
    bands: TypedBands


def measure_reuse_error(
    students: dict[str, ModelFolder], inputs: SamplingInputs, plan: pd.DataFrame, params: ReuseParams
) -> pd.DataFrame:
    """Reuse errors of teacher and students, unguided, from the same captions and noise; column ``model``.

    Args:
        students: Transformers by name.
        inputs: What is sampled with.
        plan: A row per image: its caption and noise seed.
        params: The settings, validated.

    Returns:
        A row per model, step and band.
    """
    # spread over the plan, whose rows are grouped by caption
    rows = plan.iloc[:: max(1, len(plan) // params.images)].head(params.images)
    tables = []
    for name, folder in {"teacher": inputs.teacher.transformer, **students}.items():
        table = mean_reuse_errors(
            folder.load().eval(),
            inputs.embeddings.open(),
            rows,
            inputs.teacher.shift,
            params.num_inference_steps,
            params.bands,
            params.batch_size,
        )
        table.insert(0, "model", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
