"""The planner node: what the main job will need, before anything expensive."""

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


def plan_resources(
    teacher: TeacherFolder,
    prompts: pd.DataFrame,
    text: TextParams,
    reference: StageOneParams,
    student: StageOneParams,
    refinement: AdversarialParams,
    cotraining: CotrainingParams,
    compute: ComputeParams,
    runs: Path,
) -> pd.DataFrame:
    """Memory a rank and disk of every training of the main job; raises ValueError when one cannot fit."""
    tokens = teacher.clip_tokens + text.max_sequence_length
    needs = {
        "prompt_embeddings": Need(0, 2 * len(prompts) * teacher.embedding_bytes(text.max_sequence_length)),
        "reference.stage_one": stage_one_need(teacher, tokens, reference, compute),
        "student.stage_one": stage_one_need(teacher, tokens, student, compute),
        "student.stage_two": stage_two_need(teacher, tokens, refinement, compute),
        "fractional_167.cotraining": stage_two_need(teacher, tokens, cotraining, compute),
    }
    memory, disk = available_memory(compute), available_disk(runs)
    used = 0
    for name, need in needs.items():
        used += need.disk
        require_fit(name, Need(need.memory, used), memory, disk, compute)
    table = pd.DataFrame(
        {
            "run": list(needs),
            "memory_gib_per_rank": [gib(need.memory) for need in needs.values()],
            "disk_gib": [gib(need.disk) for need in needs.values()],
            "ranks": compute.ranks,
            "sharding": compute.sharding,
        }
    )
    logger.info("Resources (%.1f GiB of memory a rank, %.1f GiB of disk free):", gib(memory), gib(disk))
    for line in table.round(3).to_string(index=False).splitlines():
        logger.info(line)
    return table
