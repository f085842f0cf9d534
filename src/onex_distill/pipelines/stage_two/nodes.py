"""Nodes of stage two."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from onex_distill.distill.stage_two.backbones import check_backbone
from onex_distill.distill.stage_two.job import AdversarialJob
from onex_distill.distill.stage_two.params import AdversarialParams
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.evaluation.sampling_jobs import DecodingJob, SamplingJob
from onex_distill.models.teacher import TeacherFolder
from onex_distill.pipelines.stage_two.params import ReferencesParams
from onex_distill.storage.frame import store_frame
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.prompt_table import rows_of_split
from onex_distill.storage.tensor_table import TensorTable

logger = logging.getLogger(__name__)


def sample_references(
    generator: ModelFolder,
    teacher: TeacherFolder,
    prompts: pd.DataFrame,
    embeddings: TensorTable,
    empty: TensorTable,
    params: ReferencesParams,
    compute: ComputeParams,
    runs: Path,
) -> TensorTable:
    """The real side of stage two: latents of the reference generator on captions of the reference split."""
    rows = torch.tensor(rows_of_split(prompts, "reference"))
    draws = torch.Generator().manual_seed(params.seed)
    chosen = rows[torch.randint(len(rows), (params.count,), generator=draws)].tolist()
    plan = pd.DataFrame(
        {
            "prompt_row": chosen,
            "prompt_id": prompts["id"].iloc[chosen].to_numpy(),
            "noise_seed": range(params.seed, params.seed + params.count),
        }
    )
    folder = runs / "sample_references"
    job = SamplingJob(
        folder=folder,
        compute=compute,
        transformer=generator,
        compensation=None,
        bands=(),
        autoencoder=None,
        embeddings=embeddings.handle,
        empty=empty.handle,
        plan=store_frame(plan, folder / "plan.parquet"),
        shift=teacher.shift,
        num_inference_steps=params.num_inference_steps,
        guidance_scale=1.0,
        batch_size=params.batch_size,
    )
    return TensorTable(launch(job) / "samples")


def decode_references(
    latents: TensorTable, teacher: TeacherFolder, params: ReferencesParams, compute: ComputeParams, runs: Path
) -> TensorTable:
    """The reference images, decoded once for all trainings."""
    job = DecodingJob(
        folder=runs / "decode_references",
        compute=compute,
        autoencoder=teacher.autoencoder,
        latents=latents.handle,
        method=f"reference_{params.num_inference_steps}",
        batch_size=params.batch_size,
    )
    return TensorTable(launch(job) / "samples")


def check_discriminator(params: AdversarialParams) -> dict[str, Any]:
    """Refuse a backbone whose weights are not there before any training; describe the accepted one."""
    check_backbone(params.backbone)
    description: dict[str, Any] = params.backbone.model_dump(mode="json")
    return description


def refine_adversarially(
    student: ModelFolder,
    backbone: dict[str, Any],
    teacher: TeacherFolder,
    recogniser: ModelFolder,
    generator: ModelFolder,
    embeddings: TensorTable,
    references: TensorTable,
    sampled: ReferencesParams,
    params: AdversarialParams,
    compute: ComputeParams,
    runs: Path,
    name: str,
) -> tuple[ModelFolder, pd.DataFrame]:
    """Refine the student's detail on its own inference path against the reference images.

    ``backbone`` is read so that no training starts before its weights are known to be there.
    """
    logger.info("The discriminator stands on %s.", backbone)
    job = AdversarialJob(
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
    refined = ModelFolder(path=result / "student", class_name=student.class_name)
    return refined, pd.read_parquet(result / "losses.parquet")
