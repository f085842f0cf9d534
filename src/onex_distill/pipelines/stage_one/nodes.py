"""Nodes of stage one."""

from pathlib import Path

import pandas as pd

from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.engine.stage_one import StageOneJob, StageOneParams
from onex_distill.models.teacher import TeacherFolder
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable


def match_distribution(
    teacher: TeacherFolder,
    embeddings: TensorTable,
    empty: TensorTable,
    params: StageOneParams,
    compute: ComputeParams,
    runs: Path,
    name: str,
) -> tuple[ModelFolder, pd.DataFrame]:
    """Distil the teacher into a student of few steps on the training captions; no image is read."""
    job = StageOneJob(
        folder=runs / name,
        compute=compute,
        teacher=teacher.transformer,
        shift=teacher.shift,
        embeddings=embeddings.handle,
        empty=empty.handle,
        params=params,
    )
    result = launch(job)
    student = ModelFolder(path=result / "student", class_name=job.teacher.class_name)
    return student, pd.read_parquet(result / "losses.parquet")
