"""Stage one's choices one at a time: every setting trained, sampled and scored."""

import logging
from pathlib import Path

import pandas as pd

from onex_distill.distill.stage_one.trainer import StageOneJob
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.evaluation.inputs import SamplingInputs
from onex_distill.evaluation.measures import MetricsParams
from onex_distill.evaluation.methods import Sampler
from onex_distill.evaluation.params import MethodParams
from onex_distill.evaluation.scored import ConfidenceParams, Scored
from onex_distill.evaluation.scores import parts_of, score_set
from onex_distill.evaluation.studies.ablation_params import TARGET, VARIED, AblationParams, Setting
from onex_distill.storage.files import remove_folder, remove_made
from onex_distill.storage.image_table import ImageTable, join_tables
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable

logger = logging.getLogger(__name__)


def train_variations(
    inputs: SamplingInputs, plan: pd.DataFrame, params: AblationParams, compute: ComputeParams, folder: Path
) -> ImageTable:
    """Images of every setting's student on the same plan; the index names the setting of each.

    Every training and every sampling is a job of its own, so that an interrupted ablation goes on where it was.

    Args:
        inputs: What is sampled with.
        plan: A row per image: its caption and noise seed.
        params: The settings, validated.
        compute: Ranks, precision and sharding.
        folder: The run's folder; a finished run in it is taken as it is.

    Returns:
        Images of every student.
    """
    sampler = Sampler(inputs, plan, compute)
    frames, images = [], []
    settings = list(params.settings())
    for number, setting in enumerate(settings, start=1):
        logger.info("Setting %d of %d: %s", number, len(settings), setting.name)
        student = _train(setting, inputs, compute, folder / setting.name / "training")
        method = MethodParams.unguided(setting.name, setting.steps)
        samples, _ = sampler.sample(student, method, folder / setting.name / "sampling")
        frames.append(plan.assign(**setting.columns))
        images.append(samples)
    remove_made(folder / "samples")
    return join_tables(images, pd.concat(frames, ignore_index=True), folder / "samples")


def score_variations(
    features: TensorTable,
    targets: TensorTable,
    teacher: TensorTable,
    metrics: MetricsParams,
    confidence: ConfidenceParams,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row per setting and seed, its parameters and then every metric; and a row per target.

    Args:
        features: Rows of every network for every image of the students.
        targets: The same of the targets' images.
        teacher: The same of the guided teacher's images, to which distances are.
        metrics: The settings of every metric.
        confidence: Level, draws and groups of intervals.

    Returns:
        The settings with their metrics, and the targets with theirs.
    """
    reference = Scored("teacher", teacher)

    def scored(images: TensorTable, columns: list[str]) -> pd.DataFrame:
        return pd.DataFrame(
            dict(zip(columns, named, strict=True)) | score_set(part, reference, metrics, confidence)
            for named, part in parts_of(images, columns)
        )

    return scored(features, [*VARIED, "seed"]), scored(targets, TARGET)


def summarise_variations(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds, a row per setting."""
    grouped = table.drop(columns="seed").groupby(VARIED, sort=False)
    summary = grouped.agg(["mean", "std"])
    summary.columns = summary.columns.map("_".join)
    return summary.reset_index()


def _train(setting: Setting, inputs: SamplingInputs, compute: ComputeParams, folder: Path) -> ModelFolder:
    job = StageOneJob(
        folder=folder,
        compute=compute,
        teacher=inputs.teacher.transformer,
        autoencoder=inputs.teacher.autoencoder,
        shift=inputs.teacher.shift,
        embeddings=inputs.embeddings,
        empty=inputs.empty,
        validation=None,
        real_latents=None,
        trajectories=None,
        params=setting.training,
    )
    student = ModelFolder(path=launch(job) / "student", class_name=job.teacher.class_name)
    for checkpoint in job.folder.glob("step-*"):  # of a finished run; many runs would fill a disk with them
        remove_folder(checkpoint)
    return student
