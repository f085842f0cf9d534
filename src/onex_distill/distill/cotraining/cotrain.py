"""Co-training from a student to one that reuses bands of blocks, with its compensation."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from onex_distill.distill.cotraining.job import CotrainingJob
from onex_distill.distill.cotraining.params import CotrainingParams
from onex_distill.distill.stage_two.inputs import AdversarialInputs
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.storage.model_folder import ModelFolder

COMPENSATION = "onex_distill.Compensation"


class Cotrained(NamedTuple):
    """A student of the cached path, its compensation, and the losses, a row per step."""

    student: ModelFolder
    compensation: ModelFolder
    losses: pd.DataFrame


def cotrain(
    student: ModelFolder, inputs: AdversarialInputs, params: CotrainingParams, compute: ComputeParams, folder: Path
) -> Cotrained:
    """Train the compensation, then compensation and student together, on the cached inference path.

    Args:
        student: The transformer to start from; it stays as it is.
        inputs: What the training reads.
        params: How it trains, and which bands are reused.
        compute: Where it runs.
        folder: Where it keeps its checkpoints and its result.

    Returns:
        Student, compensation and losses, inside ``folder``.

    Raises:
        ValueError: For inputs that are missing or damaged, and for bands that the student cannot skip.
    """
    job = CotrainingJob(folder=folder, compute=compute, student=student, params=params, **dict(inputs))
    result = launch(job)
    return Cotrained(
        ModelFolder(path=result / "student", class_name=student.class_name),
        ModelFolder(path=result / "compensation", class_name=COMPENSATION),
        pd.read_parquet(result / "losses.parquet"),
    )
