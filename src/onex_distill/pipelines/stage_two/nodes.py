"""Nodes of stage two."""

from pathlib import Path

import pandas as pd
import torch

from onex_distill.distill.stage_two.inputs import AdversarialInputs
from onex_distill.distill.stage_two.params import AdversarialParams
from onex_distill.distill.stage_two.refine import refine
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.evaluation.jobs import DecodingJob, latents_job
from onex_distill.evaluation.params import MethodParams
from onex_distill.models.conditions import Conditions
from onex_distill.models.teacher import TeacherFolder
from onex_distill.pipelines.shared.params import ReferencesParams
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.prompt_table import rows_of_split
from onex_distill.storage.tensor_table import TensorTable


def plan_references(prompts: pd.DataFrame, params: ReferencesParams) -> pd.DataFrame:
    """Captions of the reference split, drawn at random, and the noise of each."""
    rows = torch.tensor(rows_of_split(prompts, "reference"))
    draws = torch.Generator().manual_seed(params.seed)
    chosen = rows[torch.randint(len(rows), (params.count,), generator=draws)].tolist()
    return pd.DataFrame(
        {
            "prompt_row": chosen,
            "prompt_id": prompts["id"].iloc[chosen].to_numpy(),
            "noise_seed": range(params.seed, params.seed + params.count),
        }
    )


def sample_references(
    generator: ModelFolder,
    conditions: Conditions,
    plan: pd.DataFrame,
    params: ReferencesParams,
    compute: ComputeParams,
    runs: Path,
) -> TensorTable:
    """The real side of stage two: latents of the reference generator.

    Args:
        generator: The network that makes reference latents.
        conditions: The teacher and the embeddings of its captions.
        plan: A row per image: its caption and noise seed.
        params: The settings, validated.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        The latents.
    """
    unguided = MethodParams.unguided("reference", params.num_inference_steps)
    job = latents_job(conditions, generator, plan, unguided, params.batch_size, compute, runs)
    return TensorTable(launch(job) / "samples")


def decode_references(
    latents: TensorTable, teacher: TeacherFolder, params: ReferencesParams, compute: ComputeParams, runs: Path
) -> TensorTable:
    """The reference images, decoded once for all trainings.

    Args:
        latents: Latents, a row per image.
        teacher: The teacher's folder.
        params: The settings, validated.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        The images.
    """
    job = DecodingJob(
        folder=runs,
        compute=compute,
        autoencoder=teacher.autoencoder,
        latents=latents.handle,
        method=f"reference_{params.num_inference_steps}",
        batch_size=params.batch_size,
        files=False,
    )
    return TensorTable(launch(job) / "samples")


def refine_adversarially(
    student: ModelFolder,
    inputs: AdversarialInputs,
    params: AdversarialParams,
    compute: ComputeParams,
    runs: Path,
) -> tuple[ModelFolder, pd.DataFrame]:
    """Refine the student's detail on its own inference path against the reference images.

    Args:
        student: The student's transformer.
        inputs: What every adversarial training reads.
        params: The settings, validated.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        The refined student and the losses.
    """
    return refine(student, inputs, params, compute, runs)
