"""Nodes of cache co-training."""

from pathlib import Path
from typing import Literal

import pandas as pd

from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.engine.stage_two import CotrainingJob, CotrainingParams
from onex_distill.models.cache_plan import check_bands
from onex_distill.models.export import FractionalStableDiffusion3Pipeline
from onex_distill.models.teacher import TeacherFolder
from onex_distill.parameters import Params
from onex_distill.pipelines.precompute.params import TextParams
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable


class StartParams(Params):
    """Which student co-training starts from: stage one (the paper's way) or stage two."""

    stage: Literal["stage_one", "stage_two"]


def check_band(teacher: TeacherFolder, params: CotrainingParams) -> dict[str, int]:
    """Refuse a band that the transformer cannot skip before any training; describe the accepted one."""
    check_bands([params.cached_blocks], teacher.num_layers)
    start, stop = params.cached_blocks
    return {"num_layers": teacher.num_layers, "start": start, "stop": stop}


def choose_start(stage_one: ModelFolder, stage_two: ModelFolder, params: StartParams) -> ModelFolder:
    """The student that co-training starts from."""
    return stage_one if params.stage == "stage_one" else stage_two


def cotrain_cache(
    student: ModelFolder,
    band: dict[str, int],
    teacher: TeacherFolder,
    recogniser: ModelFolder,
    embeddings: TensorTable,
    references: TensorTable,
    params: CotrainingParams,
    compute: ComputeParams,
    runs: Path,
    name: str,
) -> tuple[ModelFolder, ModelFolder, pd.DataFrame]:
    """Train the compensation, then compensation and student together, on the cached inference path."""
    job = CotrainingJob(
        folder=runs / name,
        compute=compute,
        student=student,
        autoencoder=teacher.autoencoder,
        recogniser=recogniser,
        shift=teacher.shift,
        embeddings=embeddings.handle,
        references=references.handle,
        params=params.model_copy(update={"cached_blocks": (band["start"], band["stop"])}),
    )
    result = launch(job)
    trained = ModelFolder(path=result / "student", class_name=student.class_name)
    compensation = ModelFolder(path=result / "compensation", class_name="onex_distill.models.compensation.Compensation")
    return trained, compensation, pd.read_parquet(result / "losses.parquet")


def export_student(
    student: ModelFolder,
    compensation: ModelFolder,
    teacher: TeacherFolder,
    params: CotrainingParams,
    text: TextParams,
) -> FractionalStableDiffusion3Pipeline:
    """The fractional student as a diffusers pipeline with the teacher's text encoders and autoencoder."""
    components = teacher.load_text_pipeline().components
    return FractionalStableDiffusion3Pipeline(
        **{**components, "transformer": student.load(), "vae": teacher.autoencoder.load()},
        compensation=compensation.load(),
        num_inference_steps=params.num_inference_steps,
        max_sequence_length=text.max_sequence_length,
    )
