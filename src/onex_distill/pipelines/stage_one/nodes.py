"""Nodes of stage one."""

from pathlib import Path

import pandas as pd
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

from onex_distill.engine.stage_one import StageOneParams, train_stage_one
from onex_distill.storage.prompt_table import rows_of_split
from onex_distill.storage.tensor_table import TensorTable


def match_distribution(
    teacher: StableDiffusion3Pipeline,
    prompts: pd.DataFrame,
    embeddings: TensorTable,
    empty: TensorTable,
    params: StageOneParams,
    runs: Path,
    name: str,
) -> tuple[SD3Transformer2DModel, pd.DataFrame]:
    """Distil the teacher into a student of few steps on the training captions; no image is read."""
    train_prompts = embeddings.select(rows_of_split(prompts, "train"))
    shift = teacher.scheduler.config.shift
    return train_stage_one(teacher.transformer, train_prompts, empty, shift, params, runs / name)
