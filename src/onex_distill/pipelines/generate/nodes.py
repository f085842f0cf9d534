"""Nodes of the generate pipeline."""

from pathlib import Path

import pandas as pd
from PIL import Image

from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.evaluation.generation import GenerationJob, GenerationParams, contact_sheet, warn_of_unknown_words
from onex_distill.models.teacher import TeacherFolder
from onex_distill.storage.frame import store_frame
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.prompt_table import build_prompt_table


def generate_images(
    student: ModelFolder,
    teacher: TeacherFolder,
    wanted: pd.DataFrame,
    known: pd.DataFrame,
    params: GenerationParams,
    compute: ComputeParams,
    runs: Path,
) -> Path:
    """A folder of PNGs named by caption number and image number, with their captions in ``metadata.jsonl``.

    Args:
        student: The student's transformer.
        teacher: The teacher's folder.
        wanted: The captions to show.
        known: The captions that the student was trained on.
        params: The settings, validated.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        The folder.
    """
    captions = build_prompt_table(wanted)[["text"]]
    warn_of_unknown_words(captions["text"].tolist(), known["text"].tolist())
    job = GenerationJob(
        folder=runs,
        compute=compute,
        student=student,
        teacher=teacher,
        captions=store_frame(captions, runs / "captions.parquet"),
        params=params,
    )
    return launch(job) / "images"


def draw_contact_sheet(images: Path) -> Image.Image:
    """The first images of the first captions, a labelled row per caption."""
    return contact_sheet(images)
