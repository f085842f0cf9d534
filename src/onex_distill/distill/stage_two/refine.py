"""Stage two from a student to a refined one."""

from pathlib import Path

import pandas as pd

from onex_distill.distill.stage_two.inputs import AdversarialInputs
from onex_distill.distill.stage_two.job import AdversarialJob
from onex_distill.distill.stage_two.params import AdversarialParams
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.storage.model_folder import ModelFolder


def refine(
    student: ModelFolder, inputs: AdversarialInputs, params: AdversarialParams, compute: ComputeParams, folder: Path
) -> tuple[ModelFolder, pd.DataFrame]:
    """Refine a student's detail on its own inference path against the reference images.

    Args:
        student: The transformer to start from; it stays as it is.
        inputs: What the training reads.
        params: How it trains.
        compute: Where it runs.
        folder: Where it keeps its checkpoints and its result.

    Returns:
        The refined student inside ``folder``, and the losses, a row per step.

    Raises:
        ValueError: For inputs that are missing or damaged.
    """
    job = AdversarialJob(folder=folder, compute=compute, student=student, params=params, **dict(inputs))
    result = launch(job)
    refined = ModelFolder(path=result / "student", class_name=student.class_name)
    return refined, pd.read_parquet(result / "losses.parquet")
