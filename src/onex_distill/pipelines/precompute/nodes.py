"""Nodes of the precompute pipeline."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.evaluation.jobs import latents_job
from onex_distill.evaluation.params import MethodParams
from onex_distill.models.conditions import Conditions
from onex_distill.models.embedding import EmbeddingJob
from onex_distill.models.online import Encoding, OnlineEmbeddings
from onex_distill.models.teacher import TeacherFolder
from onex_distill.models.text import count_truncated
from onex_distill.pipelines.shared.params import (
    CaptionSetParams,
    PromptCountsParams,
    TeacherSamplingParams,
    TextParams,
)
from onex_distill.storage.frame import store_frame
from onex_distill.storage.prompt_table import build_prompt_table, draw_rows, join_prompts, rows_of_split
from onex_distill.storage.tensor_table import TensorTable

logger = logging.getLogger(__name__)


def prepare_prompts(
    captions: pd.DataFrame,
    evaluation_captions: pd.DataFrame,
    counts: PromptCountsParams,
    evaluation: CaptionSetParams,
) -> pd.DataFrame:
    """Check the captions, give each an id and a split, and keep those that trainings and evaluation will draw.

    Args:
        captions: Captions for training.
        evaluation_captions: Captions for evaluation.
        counts: How many captions to keep.
        evaluation: How many held-out captions to keep.

    Returns:
        The prompt table.
    """
    kept = {"train": counts.train, "reference": counts.reference, "heldout": evaluation.captions}
    tables = [build_prompt_table(table) for table in (captions, evaluation_captions)]
    return join_prompts(tables[0], tables[1], kept, counts.seed)


def embed_prompts(
    prompts: pd.DataFrame,
    teacher: TeacherFolder,
    params: TextParams,
    compute: ComputeParams,
    runs: Path,
    _after_resource_plan: pd.DataFrame,
) -> tuple[TensorTable, TensorTable]:
    """Embeddings of every caption, or what makes them when they are read; those of the empty prompt are stored.

    Args:
        prompts: Captions with their ids and splits.
        teacher: The teacher's folder.
        params: The settings, validated.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.
        _after_resource_plan: Only read so that the plan is checked first.

    Returns:
        Embeddings of the captions, and of the empty prompt.
    """
    count_truncated(teacher.load_tokenizers(), prompts["text"].tolist(), params.max_sequence_length)
    tables: list[TensorTable] = []
    for name, frame in (("captions", prompts), ("empty", pd.DataFrame({"id": ["empty"], "text": ""}))):
        folder = runs / name
        if name == "captions" and params.encoding == "online":
            encoding = Encoding(
                teacher=teacher.absolute(),
                max_sequence_length=params.max_sequence_length,
                dtype=params.dtype,
                device=params.device,
            )
            tables.append(OnlineEmbeddings.store(runs / "online_captions", frame, encoding))
            continue
        job = EmbeddingJob(
            folder=folder,
            compute=compute,
            teacher=teacher,
            prompts=store_frame(frame, folder / "prompts.parquet"),
            max_sequence_length=params.max_sequence_length,
            dtype=params.dtype,
            batch_size=params.batch_size,
        )
        tables.append(TensorTable(launch(job) / "embeddings"))
    return tables[0], tables[1]


def plan_evaluation(prompts: pd.DataFrame, params: CaptionSetParams) -> pd.DataFrame:
    """The plan on which every method is sampled and scored; no training sees its captions."""
    rows = rows_of_split(prompts, "heldout")
    if len(rows) < params.captions:
        logger.warning("The evaluation has %d captions; evaluation_set.captions is %d.", len(rows), params.captions)
    return _plan(prompts, rows[: params.captions], params)


def plan_validation(prompts: pd.DataFrame, params: CaptionSetParams) -> pd.DataFrame:
    """The plan on which stage one is watched; neither its training nor the evaluation reads these captions."""
    return _plan(prompts, draw_rows(rows_of_split(prompts, "reference"), params.captions, params.seed), params)


def _plan(prompts: pd.DataFrame, chosen: np.ndarray, params: CaptionSetParams) -> pd.DataFrame:
    """One row per image to be sampled: ``prompt_row``, ``prompt_id``, ``text``, ``noise_seed``."""
    rows = np.repeat(chosen, params.images_per_caption)
    plan = prompts.loc[rows, ["id", "text"]].rename(columns={"id": "prompt_id"})
    plan.insert(0, "prompt_row", rows)
    plan["noise_seed"] = range(params.seed, params.seed + len(rows))
    return plan.reset_index(drop=True)


def sample_teacher(
    conditions: Conditions, plan: pd.DataFrame, params: TeacherSamplingParams, compute: ComputeParams, runs: Path
) -> TensorTable:
    """The teacher's latents on a plan; the column ``seconds`` is the transformer's time per image.

    Args:
        conditions: The teacher and the embeddings of its captions.
        plan: A row per image: its caption and noise seed.
        params: The settings, validated.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        The latents.
    """
    guided = MethodParams(
        name="teacher", steps=params.num_inference_steps, guidance_scale=params.guidance_scale, alpha=1.0, nfe=None
    )
    job = latents_job(conditions, conditions.teacher.transformer, plan, guided, params.batch_size, compute, runs)
    return TensorTable(launch(job) / "samples")
