"""Nodes of cache co-training."""

from pathlib import Path
from typing import Literal

from onex_distill.cache.assembly import build_student
from onex_distill.cache.export import FractionalStableDiffusion3Pipeline
from onex_distill.distill.cotraining.cotrain import Cotrained, cotrain
from onex_distill.distill.cotraining.params import CotrainingParams
from onex_distill.distill.stage_two.inputs import AdversarialInputs
from onex_distill.engine.compute import ComputeParams
from onex_distill.models.teacher import TeacherFolder
from onex_distill.parameters import Params
from onex_distill.pipelines.shared.params import TextParams
from onex_distill.storage.model_folder import ModelFolder


class StartParams(Params):
    """Which student co-training starts from: stage one (the paper's way) or stage two."""

    stage: Literal["stage_one", "stage_two"]


def choose_start(stage_one: ModelFolder, stage_two: ModelFolder, params: StartParams) -> ModelFolder:
    """The student that co-training starts from."""
    return stage_one if params.stage == "stage_one" else stage_two


def cotrain_cache(
    student: ModelFolder,
    inputs: AdversarialInputs,
    params: CotrainingParams,
    compute: ComputeParams,
    runs: Path,
) -> Cotrained:
    """Train the compensation, then compensation and student together, on the cached inference path.

    Args:
        student: The student's transformer.
        inputs: What every adversarial training reads.
        params: The settings, validated.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        What was trained, and the losses.
    """
    return cotrain(student, inputs, params, compute, runs)


def export_student(
    student: ModelFolder,
    compensation: ModelFolder,
    teacher: TeacherFolder,
    params: CotrainingParams,
    text: TextParams,
) -> FractionalStableDiffusion3Pipeline:
    """The fractional student as a diffusers pipeline with the teacher's text encoders and autoencoder, in its dtype.

    Args:
        student: The student's transformer.
        compensation: What corrects reused residuals.
        teacher: The teacher's folder.
        params: The settings, validated.
        text: How captions are encoded.

    Returns:
        The pipeline.
    """
    return build_student(
        student,
        compensation,
        teacher,
        num_inference_steps=params.num_inference_steps,
        max_sequence_length=text.max_sequence_length,
    )
