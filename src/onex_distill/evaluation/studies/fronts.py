"""Students measured along their budgets."""

from pathlib import Path

import pandas as pd

from onex_distill.cache.compensation import Compensation
from onex_distill.engine.compute import ComputeParams
from onex_distill.evaluation.inputs import StudyInputs
from onex_distill.evaluation.methods import SECONDS, Sampler
from onex_distill.evaluation.params import MethodParams
from onex_distill.evaluation.studies.latency import TRANSFORMER_SECONDS
from onex_distill.storage.model_folder import ModelFolder

COLUMNS = ["method", "bands", "nfe", "nfe_flops", "fid", "alignment", "diversity"]
TIMES = [TRANSFORMER_SECONDS, SECONDS]


def measure_front(
    student: ModelFolder,
    compensation: ModelFolder,
    study: StudyInputs,
    plan: pd.DataFrame,
    method: MethodParams,
    compute: ComputeParams,
    folder: Path,
) -> pd.DataFrame:
    """A row for every set of bands that the compensation was trained for, each a budget; without seconds.

    Args:
        student: the transformer.
        compensation: of all sets of bands.
        study: what to sample with and what to score by.
        plan: captions and noise.
        method: name and steps of all rows.
        compute: where to sample.
        folder: of the run.

    Returns:
        ``COLUMNS`` that the configuration measures.
    """
    sampler = Sampler(study.sampling, plan, compute)
    samples, costs, bands = {}, {}, {}
    for number, candidate in enumerate(Compensation.load_candidates(compensation.path)):
        text = str([list(band) for band in candidate])
        label = f"{method.name} {text}"
        budget = method.model_copy(update={"name": label})
        samples[label], costs[label] = sampler.sample(student, budget, folder / str(number), compensation, candidate)
        bands[label] = text
    scores = study.scoring.score_images(samples, compute, folder)
    table = scores.merge(pd.DataFrame(costs.values()), on="method")
    table = table.assign(bands=table["method"].map(bands), method=method.name)
    return table[[column for column in COLUMNS if column in table]]


def collect_fronts(latency: pd.DataFrame, **fronts: pd.DataFrame) -> pd.DataFrame:
    """All methods in one table, a row per method and budget, with the seconds of each."""
    seconds = latency.set_index(["front", "bands"])[TIMES]
    timed = [table.join(seconds.loc[front], on="bands") for front, table in fronts.items()]
    return pd.concat(timed).sort_values(["method", "nfe"], ignore_index=True)
