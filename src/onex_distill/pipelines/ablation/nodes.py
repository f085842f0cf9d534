"""Nodes of the ablation: train and sample every variation, score the samples, draw the comparison."""

import logging
from pathlib import Path

import pandas as pd
import torch

from onex_distill.distill.stage_one.trainer import StageOneJob
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.evaluation.sampling_jobs import SamplingJob
from onex_distill.evaluation.scores import score_images
from onex_distill.models.teacher import TeacherFolder
from onex_distill.pipelines.ablation.params import VARIED, AblationParams, Setting
from onex_distill.shapes.features import extract_features
from onex_distill.storage.files import remove_folder, remove_made
from onex_distill.storage.frame import FrameFile, store_frame
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable

logger = logging.getLogger(__name__)

NODE = "train_variations"


def train_variations(
    teacher: TeacherFolder,
    embeddings: TensorTable,
    empty: TensorTable,
    plan: pd.DataFrame,
    params: AblationParams,
    compute: ComputeParams,
    runs: Path,
) -> TensorTable:
    """Images of every setting's student on the same plan; the index names the setting of each.

    Every training and every sampling is a job of its own, so that an interrupted ablation goes on where it was.
    """
    folder = runs / NODE
    plan_file = store_frame(plan, folder / "plan.parquet")
    frames, images = [], []
    settings = list(params.settings())
    for number, setting in enumerate(settings, start=1):
        logger.info("Setting %d of %d: %s", number, len(settings), setting.name)
        student = _train(setting, teacher, embeddings, empty, compute, folder)
        samples = _sample(setting, student, teacher, embeddings, empty, plan_file, params, compute, folder)
        frames.append(plan.assign(**setting.columns))
        images.append(samples.column("image"))
    remove_made(folder / "samples")
    return TensorTable.write(folder / "samples", pd.concat(frames, ignore_index=True), {"image": torch.cat(images)})


def score_variations(
    evaluator: ModelFolder, teacher: TensorTable, samples: TensorTable
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row a setting and seed, its parameters and then every metric; and the guided teacher's own row."""
    reader = evaluator.load()
    reference = extract_features(reader, teacher.column("image"))

    def score(table: TensorTable, index: pd.DataFrame) -> dict[str, float]:
        groups = torch.tensor(index["prompt_row"].to_list())
        images = table.read("image", index.index.to_numpy())
        return score_images(reader, images, index["text"].tolist(), groups, reference)

    rows = [
        dict(zip([*VARIED, "seed"], setting, strict=True)) | score(samples, index)
        for setting, index in samples.index.groupby([*VARIED, "seed"], sort=False)
    ]
    return pd.DataFrame(rows), pd.DataFrame([score(teacher, teacher.index)])


def _train(
    setting: Setting,
    teacher: TeacherFolder,
    embeddings: TensorTable,
    empty: TensorTable,
    compute: ComputeParams,
    folder: Path,
) -> ModelFolder:
    job = StageOneJob(
        folder=folder / setting.name / "training",
        compute=compute,
        teacher=teacher.transformer,
        autoencoder=teacher.autoencoder,
        shift=teacher.shift,
        embeddings=embeddings.handle,
        empty=empty.handle,
        validation=None,
        real_latents=None,
        params=setting.training,
    )
    student = ModelFolder(path=launch(job) / "student", class_name=job.teacher.class_name)
    for checkpoint in job.folder.glob("step-*"):  # of a finished run; many runs would fill a disk with them
        remove_folder(checkpoint)
    return student


def _sample(
    setting: Setting,
    student: ModelFolder,
    teacher: TeacherFolder,
    embeddings: TensorTable,
    empty: TensorTable,
    plan: FrameFile,
    params: AblationParams,
    compute: ComputeParams,
    folder: Path,
) -> TensorTable:
    job = SamplingJob(
        folder=folder / setting.name / "sampling",
        compute=compute,
        transformer=student,
        compensation=None,
        bands=(),
        autoencoder=teacher.autoencoder,
        embeddings=embeddings.handle,
        empty=empty.handle,
        plan=plan,
        shift=teacher.shift,
        num_inference_steps=setting.steps,
        guidance_scale=1.0,
        batch_size=params.batch_size,
    )
    return TensorTable(launch(job) / "samples")
