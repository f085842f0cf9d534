"""What the main job will need, before anything expensive: a node per training, and one that checks the machine."""

import logging
from pathlib import Path

import pandas as pd

from onex_distill.distill.cotraining.params import CotrainingParams
from onex_distill.distill.planner import (
    Need,
    available_disk,
    available_memory,
    gib,
    require_fit,
    stage_one_need,
    stage_two_need,
)
from onex_distill.distill.stage_one.params import StageOneParams
from onex_distill.distill.stage_two.params import AdversarialParams
from onex_distill.engine.compute import ComputeParams
from onex_distill.models.teacher import TeacherFolder
from onex_distill.pipelines.precompute.params import TextParams

logger = logging.getLogger(__name__)

Bytes = dict[str, int]  # the fields of ``Need`` by name


def estimate_embeddings(teacher: TeacherFolder, prompts: pd.DataFrame, text: TextParams) -> Bytes:
    """The disk that embeddings take, in the run and as a dataset."""
    return Need(0, 2 * len(prompts) * teacher.embedding_bytes(text.max_sequence_length))._asdict()


def estimate_stage_one(
    teacher: TeacherFolder, text: TextParams, params: StageOneParams, compute: ComputeParams
) -> Bytes:
    """Memory per rank and disk of one run of stage one."""
    return stage_one_need(teacher, teacher.clip_tokens + text.max_sequence_length, params, compute)._asdict()


def estimate_stage_two(
    teacher: TeacherFolder, text: TextParams, params: AdversarialParams, compute: ComputeParams
) -> Bytes:
    """Memory per rank and disk of one run of stage two."""
    return stage_two_need(teacher, teacher.clip_tokens + text.max_sequence_length, params, compute)._asdict()


def estimate_cotraining(
    teacher: TeacherFolder, text: TextParams, params: CotrainingParams, compute: ComputeParams
) -> Bytes:
    """Memory per rank and disk of one co-training."""
    return stage_two_need(teacher, teacher.clip_tokens + text.max_sequence_length, params, compute)._asdict()


def plan_resources(compute: ComputeParams, runs: Path, **needs: Bytes) -> pd.DataFrame:
    """A row per need. Raises ValueError when one cannot fit; disk is counted over all that came before."""
    memory, disk = available_memory(compute), available_disk(runs)
    used = 0
    for name, need in needs.items():
        used += need["disk"]
        require_fit(name, Need(need["memory"], used), memory, disk, compute)
    table = pd.DataFrame(
        {
            "run": list(needs),
            "memory_gib_per_rank": [gib(need["memory"]) for need in needs.values()],
            "disk_gib": [gib(need["disk"]) for need in needs.values()],
            "ranks": compute.ranks,
            "sharding": compute.sharding,
        }
    )
    logger.info("Resources (%.1f GiB of memory per rank, %.1f GiB of disk free):", gib(memory), gib(disk))
    for line in table.round(3).to_string(index=False).splitlines():
        logger.info(line)
    return table
