"""Nodes of cache co-training."""

import logging
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from onex_distill.cache.export import FractionalStableDiffusion3Pipeline
from onex_distill.cache.plan import check_bands, effective_nfe, reuse_after_first
from onex_distill.distill.cotraining.job import CotrainingJob
from onex_distill.distill.cotraining.params import CotrainingParams
from onex_distill.distill.stage_two.backbones import check_backbone
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.models.teacher import TeacherFolder
from onex_distill.parameters import Params
from onex_distill.pipelines.precompute.params import TextParams
from onex_distill.pipelines.stage_two.params import ReferencesParams
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable

logger = logging.getLogger(__name__)

COMPENSATION = "onex_distill.Compensation"


class StartParams(Params):
    """Which student co-training starts from: stage one (the paper's way) or stage two."""

    stage: Literal["stage_one", "stage_two"]


def check_band(teacher: TeacherFolder, params: CotrainingParams) -> dict[str, Any]:
    """Refuse bands that the transformer cannot skip, and a backbone without weights, before any training.

    Describes what is accepted, with the evaluations that each candidate leaves.
    """
    check_backbone(params.backbone)
    for bands in params.candidates:
        check_bands(bands, teacher.num_layers)
    plans = [reuse_after_first(bands, params.num_inference_steps) for bands in params.candidates]
    nfe = [round(effective_nfe(plan, teacher.num_layers), 4) for plan in plans]
    return {"num_layers": teacher.num_layers, "candidates": [plan.bands for plan in plans], "nfe": nfe}


def choose_start(stage_one: ModelFolder, stage_two: ModelFolder, params: StartParams) -> ModelFolder:
    """The student that co-training starts from."""
    return stage_one if params.stage == "stage_one" else stage_two


def cotrain_cache(
    student: ModelFolder,
    band: dict[str, Any],
    teacher: TeacherFolder,
    recogniser: ModelFolder,
    generator: ModelFolder,
    embeddings: TensorTable,
    references: TensorTable,
    sampled: ReferencesParams,
    params: CotrainingParams,
    compute: ComputeParams,
    runs: Path,
    name: str,
) -> tuple[ModelFolder, ModelFolder, pd.DataFrame]:
    """Train the compensation, then compensation and student together, on the cached inference path.

    ``band`` is read so that no training starts before its bands are known to fit.
    """
    logger.info("Co-training at %s evaluations.", band["nfe"])
    job = CotrainingJob(
        folder=runs / name,
        compute=compute,
        student=student,
        autoencoder=teacher.autoencoder,
        recogniser=recogniser,
        reference_generator=generator,
        reference_steps=sampled.num_inference_steps,
        shift=teacher.shift,
        embeddings=embeddings.handle,
        references=references.handle,
        params=params,
    )
    result = launch(job)
    trained = ModelFolder(path=result / "student", class_name=student.class_name)
    compensation = ModelFolder(path=result / "compensation", class_name=COMPENSATION)
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
