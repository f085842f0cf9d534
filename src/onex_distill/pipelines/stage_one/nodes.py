"""Nodes of stage one."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from onex_distill.distill.stage_one.params import StageOneParams
from onex_distill.distill.stage_one.trainer import StageOneJob
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.evaluation.sampling_jobs import DecodingJob
from onex_distill.metrics.grids import image_grid
from onex_distill.models.teacher import TeacherFolder
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable

GRID_ROWS = 10


def match_distribution(
    teacher: TeacherFolder,
    embeddings: TensorTable,
    empty: TensorTable,
    validation: TensorTable,
    params: StageOneParams,
    compute: ComputeParams,
    runs: Path,
    real_latents: TensorTable | None = None,
    *,
    name: str,
) -> tuple[ModelFolder, ModelFolder, pd.DataFrame, TensorTable]:
    """Distil the teacher into a student of few steps on the training captions; no image is needed, but for DMD2's GAN.

    Returns the student that goes on, the best by validation, the losses, and the fixed grid's latents over the run.
    """
    job = StageOneJob(
        folder=runs / name,
        compute=compute,
        teacher=teacher.transformer,
        autoencoder=teacher.autoencoder,
        shift=teacher.shift,
        embeddings=embeddings.handle,
        empty=empty.handle,
        validation=validation.handle,
        real_latents=None if real_latents is None else real_latents.handle,
        params=params,
    )
    result = launch(job)
    last, best = (ModelFolder(path=result / name, class_name=job.teacher.class_name) for name in ("student", "best"))
    chosen = best if params.select == "best" else last
    return chosen, best, pd.read_parquet(result / "losses.parquet"), TensorTable(result / "grid")


def draw_watched_grid(
    teacher: TeacherFolder, grid: TensorTable, params: StageOneParams, compute: ComputeParams, runs: Path, name: str
) -> Image.Image:
    """The fixed grid over the run: one row a watched step, at most ten of them, one column a sample."""
    job = DecodingJob(
        folder=runs / name,
        compute=compute,
        autoencoder=teacher.autoencoder,
        latents=grid.handle,
        method=name,
        batch_size=params.watch.prompts * params.watch.images,
    )
    images = TensorTable(launch(job) / "samples")
    steps = images.index["step"].unique()
    shown = steps[np.linspace(0, len(steps) - 1, min(len(steps), GRID_ROWS)).round().astype(int)]
    rows = [np.flatnonzero(images.index["step"] == step) for step in shown]
    return image_grid([images.read("image", row).float() / 255 for row in rows])
