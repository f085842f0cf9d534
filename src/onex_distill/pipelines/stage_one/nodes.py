"""Nodes of stage one."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from onex_distill.distill.stage_one.params import StageOneParams
from onex_distill.distill.stage_one.trainer import StageOneJob
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.evaluation.jobs import DecodingJob
from onex_distill.evaluation.trajectories import TrajectoriesJob
from onex_distill.metrics.grids import image_grid
from onex_distill.models.conditions import Conditions
from onex_distill.models.teacher import TeacherFolder
from onex_distill.pipelines.shared.params import TeacherSamplingParams
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable

GRID_ROWS = 10


class Matched(NamedTuple):
    """The student that goes on, the best by validation, the losses, and the fixed grid's latents over the run."""

    student: ModelFolder
    best: ModelFolder
    losses: pd.DataFrame
    grid: TensorTable


def match_distribution(
    conditions: Conditions, validation: TensorTable, params: StageOneParams, compute: ComputeParams, runs: Path
) -> Matched:
    """Distil the teacher into a student of few steps on the training captions; no image is needed.

    Args:
        conditions: The teacher and the embeddings of its captions.
        validation: Held-out latents of the teacher.
        params: The settings, validated.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        The student that goes on, the best by validation, the losses, and the fixed grid's latents.
    """
    return _match(conditions, validation, params, compute, runs)


def match_distribution_beside_regression(
    conditions: Conditions,
    validation: TensorTable,
    trajectories: TensorTable,
    params: StageOneParams,
    compute: ComputeParams,
    runs: Path,
) -> Matched:
    """Distil the teacher into a student of few steps by matching, beside a regression to trajectories of the teacher.

    Args:
        conditions: The teacher and the embeddings of its captions.
        validation: Held-out latents of the teacher.
        trajectories: The teacher's trajectories; none are needed without the regression.
        params: The settings, validated.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        The student that goes on, the best by validation, the losses, and the fixed grid's latents.
    """
    return _match(conditions, validation, params, compute, runs, trajectories=trajectories)


def match_distribution_with_gan(
    conditions: Conditions,
    validation: TensorTable,
    real_latents: TensorTable,
    params: StageOneParams,
    compute: ComputeParams,
    runs: Path,
) -> Matched:
    """The same with DMD2's adversarial term, which reads latents of real images.

    Args:
        conditions: The teacher and the embeddings of its captions.
        validation: Held-out latents of the teacher.
        real_latents: Latents of real images.
        params: The settings, validated.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        The student that goes on, the best by validation, the losses, and the fixed grid's latents.
    """
    return _match(conditions, validation, params, compute, runs, real_latents=real_latents)


def sample_trajectories(
    conditions: Conditions, params: StageOneParams, sampling: TeacherSamplingParams, compute: ComputeParams, runs: Path
) -> TensorTable:
    """The teacher's trajectories on training captions, at the levels of the student's steps; none without regression.

    Args:
        conditions: The teacher and the embeddings of its captions.
        params: The settings of stage one, validated.
        sampling: The teacher's steps, and rows at once.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        A row per trajectory.
    """
    job = TrajectoriesJob(
        folder=runs,
        compute=compute,
        conditions=conditions,
        params=params,
        teacher_steps=sampling.num_inference_steps,
        batch_size=sampling.batch_size,
    )
    return TensorTable(launch(job) / "trajectories")


def draw_watched_grid(
    teacher: TeacherFolder, grid: TensorTable, params: StageOneParams, compute: ComputeParams, runs: Path
) -> Image.Image:
    """The fixed grid over the run: one row per watched step, at most ten of them, one column per sample.

    Args:
        teacher: The teacher's folder.
        grid: Watched latents, with their step.
        params: The settings, validated.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        The grid.
    """
    job = DecodingJob(
        folder=runs,
        compute=compute,
        autoencoder=teacher.autoencoder,
        latents=grid.handle,
        method="watched",
        batch_size=params.watch.prompts * params.watch.images,
        files=False,
    )
    images = TensorTable(launch(job) / "samples")
    steps = images.index["step"].unique()
    shown = steps[np.linspace(0, len(steps) - 1, min(len(steps), GRID_ROWS)).round().astype(int)]
    rows = [np.flatnonzero(images.index["step"] == step) for step in shown]
    return image_grid([images.read("image", row).float() / 255 for row in rows])


def _match(
    conditions: Conditions,
    validation: TensorTable,
    params: StageOneParams,
    compute: ComputeParams,
    folder: Path,
    real_latents: TensorTable | None = None,
    trajectories: TensorTable | None = None,
) -> Matched:
    transformer = conditions.teacher.transformer
    job = StageOneJob(
        folder=folder,
        compute=compute,
        teacher=transformer,
        autoencoder=conditions.teacher.autoencoder,
        shift=conditions.teacher.shift,
        embeddings=conditions.embeddings,
        empty=conditions.empty,
        validation=validation.handle,
        real_latents=None if real_latents is None else real_latents.handle,
        trajectories=None if trajectories is None else trajectories.handle,
        params=params,
    )
    result = launch(job)
    last, best = (ModelFolder(path=result / name, class_name=transformer.class_name) for name in ("student", "best"))
    chosen = best if params.select == "best" else last
    return Matched(chosen, best, pd.read_parquet(result / "losses.parquet"), TensorTable(result / "grid"))
