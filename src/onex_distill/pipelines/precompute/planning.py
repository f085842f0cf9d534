"""What the main job will need, before anything expensive: a node per training, and one that checks the machine."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from onex_distill.distill.cotraining.params import CotrainingParams
from onex_distill.distill.planner import (
    Need,
    NeedOf,
    available_disk,
    available_memory,
    encoding_need,
    gib,
    on_accelerator,
    remedy,
    require_fit,
    stage_one_need,
    stage_two_need,
    uses_accelerator,
)
from onex_distill.distill.stage_one.params import StageOneParams
from onex_distill.distill.stage_two.params import AdversarialParams
from onex_distill.engine.compute import ComputeParams
from onex_distill.models.online import DTYPES
from onex_distill.models.teacher import TeacherFolder
from onex_distill.parameters import Params
from onex_distill.pipelines.shared.params import TextParams
from onex_distill.storage.model_folder import ModelFolder

logger = logging.getLogger(__name__)

Estimate = dict[str, Any]  # the fields of ``Need`` by name, and what to change where the memory is not there


def estimate_embeddings(
    teacher: TeacherFolder, prompts: pd.DataFrame, text: TextParams, compute: ComputeParams
) -> Estimate:
    """The text encoders on every rank, and the disk that stored embeddings take, in the run and as a dataset.

    Encoders of the embeddings that are made online are in memory while training; they count there.

    Args:
        teacher: The teacher's folder.
        prompts: Captions with their ids and splits.
        text: How captions are encoded.
        compute: Ranks, precision and sharding.

    Returns:
        Bytes of memory per rank, bytes of disk, and a remedy.
    """
    if text.encoding == "online":
        return {"memory": 0, "disk": 0, "remedy": ""}
    dtype = DTYPES[text.dtype]
    size = teacher.embedding_bytes(text.max_sequence_length) * dtype.itemsize // torch.float32.itemsize
    memory = _placed(encoding_need(teacher, dtype).memory, compute)
    return {"memory": memory, "disk": 2 * len(prompts) * size, "remedy": "set text.dtype bf16"}


def estimate_stage_one(
    teacher: TeacherFolder, text: TextParams, params: StageOneParams, compute: ComputeParams
) -> Estimate:
    """Memory per rank and disk of one run of stage one.

    Args:
        teacher: The teacher's folder.
        text: How captions are encoded.
        params: The settings, validated.
        compute: Ranks, precision and sharding.

    Returns:
        Bytes of memory per rank, bytes of disk, and a remedy.
    """
    need_of = partial(stage_one_need, teacher, teacher.clip_tokens + text.max_sequence_length)
    return _estimate(need_of, teacher, text, params, compute)


def estimate_stage_two(
    teacher: TeacherFolder, recogniser: ModelFolder, text: TextParams, params: AdversarialParams, compute: ComputeParams
) -> Estimate:
    """Memory per rank and disk of one run of stage two.

    Args:
        teacher: The teacher's folder.
        recogniser: The recogniser that judges images.
        text: How captions are encoded.
        params: The settings, validated.
        compute: Ranks, precision and sharding.

    Returns:
        Bytes of memory per rank, bytes of disk, and a remedy.
    """
    need_of = partial(stage_two_need, teacher, recogniser, teacher.clip_tokens + text.max_sequence_length)
    return _estimate(need_of, teacher, text, params, compute)


def estimate_cotraining(
    teacher: TeacherFolder, recogniser: ModelFolder, text: TextParams, params: CotrainingParams, compute: ComputeParams
) -> Estimate:
    """Memory per rank and disk of one co-training.

    Args:
        teacher: The teacher's folder.
        recogniser: The recogniser that judges images.
        text: How captions are encoded.
        params: The settings, validated.
        compute: Ranks, precision and sharding.

    Returns:
        Bytes of memory per rank, bytes of disk, and a remedy.
    """
    need_of = partial(stage_two_need, teacher, recogniser, teacher.clip_tokens + text.max_sequence_length)
    return _estimate(need_of, teacher, text, params, compute)


def _estimate(
    need_of: NeedOf, teacher: TeacherFolder, text: TextParams, params: Params, compute: ComputeParams
) -> Estimate:
    """The need of a training with all that is on its device beside it, and what to change where it is not there."""
    beside = encoding_need(teacher, DTYPES[text.dtype]).memory if encodes_beside(text, compute) else 0

    def whole(params: Any, compute: ComputeParams) -> Need:
        need = need_of(params, compute)
        return need._replace(memory=_placed(need.memory + beside, compute))

    need, memory = whole(params, compute), available_memory(compute)
    return {**need._asdict(), "remedy": remedy(whole, params, compute, memory) if need.memory > memory else ""}


def encodes_beside(text: TextParams, compute: ComputeParams) -> bool:
    """Whether text encoders share the memory that a training has."""
    return text.encoding == "online" and (text.device == "auto" or not uses_accelerator(compute))


def _placed(tensors: int, compute: ComputeParams) -> int:
    return on_accelerator(tensors, compute.ranks) if uses_accelerator(compute) else tensors


def plan_resources(compute: ComputeParams, runs: Path, **needs: Estimate) -> pd.DataFrame:
    """A row per need. Raises ValueError when one cannot fit; disk is counted over all that came before."""
    memory, disk = available_memory(compute), available_disk(runs)
    used = 0
    for name, need in needs.items():
        used += need["disk"]
        require_fit(name, Need(need["memory"], used), memory, disk, need["remedy"])
    table = pd.DataFrame(
        {
            "run": list(needs),
            "memory_gib_per_rank": [gib(need["memory"]) for need in needs.values()],
            "disk_gib": [gib(need["disk"]) for need in needs.values()],
            "ranks": compute.ranks,
            "sharding": compute.sharding,
        }
    )
    most = max(need["memory"] for need in needs.values())
    logger.info(
        "Needs at most %.2f GiB of memory per rank (%.1f are free) and %.2f GiB of disk (%.1f are free).",
        *(gib(size) for size in (most, memory, used, disk)),
    )
    logger.debug("Resources:\n%s", table.round(3).to_string(index=False))
    return table
