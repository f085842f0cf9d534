"""What compensation recovers of what plain caching loses: trainings with every seed, their images and their scores."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from onex_distill.cache.compensation import Compensation, FunctionParams
from onex_distill.cache.plan import Bands, check_bands
from onex_distill.distill.cotraining.cotrain import COMPENSATION, Cotrained, cotrain
from onex_distill.distill.cotraining.params import CotrainingParams
from onex_distill.distill.stage_two.backbones import check_backbone
from onex_distill.distill.stage_two.inputs import AdversarialInputs
from onex_distill.distill.stage_two.params import AdversarialParams
from onex_distill.distill.stage_two.refine import refine
from onex_distill.engine.compute import ComputeParams
from onex_distill.evaluation.inputs import SamplingInputs
from onex_distill.evaluation.measures import MetricsParams, measure
from onex_distill.evaluation.methods import Sampler
from onex_distill.evaluation.params import MethodParams
from onex_distill.evaluation.scored import ConfidenceParams, Scored
from onex_distill.evaluation.scores import parts_of, score_set
from onex_distill.evaluation.studies.recovery_params import RecoveryParams
from onex_distill.storage.files import remove_made
from onex_distill.storage.image_table import ImageTable, join_tables
from onex_distill.storage.model_folder import ModelFolder, save_model
from onex_distill.storage.tensor_table import TensorTable

PLAIN, UNCACHED = "plain", "uncached"
RECOVERED = ("alignment", "fid", "fid_uncached")


class Contender(NamedTuple):
    """A student to be sampled; with a compensation, its bands are reused."""

    training: str
    method: str
    transformer: ModelFolder
    compensation: ModelFolder | None


def train_recovery(
    student: ModelFolder,
    inputs: AdversarialInputs,
    sampling: SamplingInputs,
    plan: pd.DataFrame,
    params: RecoveryParams,
    compute: ComputeParams,
    folder: Path,
) -> ImageTable:
    """Images of every contender and seed on the same plan; the index names ``training``, ``method`` and ``seed``.

    Every training and every sampling is a job of its own, so that an interrupted run goes on where it was.

    Args:
        student: what all trainings start from.
        inputs: the other inputs of adversarial training.
        sampling: what to sample with.
        plan: captions and noise.
        params: trainings and seeds.
        compute: where to run.
        folder: of the run.

    Returns:
        The images of all contenders. Raises ValueError for bands that the transformer cannot skip.
    """
    for training in (params.alone, params.cotraining, params.uncached):
        check_backbone(training.backbone)
    check_bands(params.bands, sampling.teacher.num_layers)
    trainings = Trainings(student, inputs, compute, folder)
    plain = _plain_caching(student, params.bands, folder / PLAIN)
    sampler = Sampler(sampling, plan, compute)
    frames, images = [], []
    for seed in params.seeds:
        for one in _contenders(trainings, plain, params, seed):
            name = f"{one.training} {one.method} {seed}"
            method = MethodParams.unguided(name, params.alone.num_inference_steps)
            bands = () if one.compensation is None else params.bands
            table, _ = sampler.sample(one.transformer, method, folder / f"sample {name}", one.compensation, bands)
            frames.append(plan.assign(training=one.training, method=one.method, seed=seed))
            images.append(table)
    remove_made(folder / "samples")
    return join_tables(images, pd.concat(frames, ignore_index=True), folder / "samples")


def score_recovery(
    features: TensorTable, teacher: TensorTable, metrics: MetricsParams, confidence: ConfidenceParams
) -> pd.DataFrame:
    """A row per training, seed and method, and the share of plain caching's loss that each recovers of three metrics.

    ``fid_uncached`` is the distance to the images of the uncached student of the same training and seed, from the same
    noise. The share is (plain - method) / (plain - uncached): 0 for plain caching, 1 for no loss; not a number where
    plain caching loses nothing.

    Args:
        features: Rows of every network for every image.
        teacher: The same of the guided teacher's images.
        metrics: The settings of every metric.
        confidence: Level, draws and groups of intervals.

    Returns:
        A row per training, seed and method.
    """
    reference = Scored("teacher", teacher)
    parts = {tuple(map(str, names)): scored for names, scored in parts_of(features, ["training", "seed", "method"])}
    rows = []
    for (training, seed, method), scored in parts.items():
        scores = score_set(scored, reference, metrics, confidence)
        row: dict[str, Any] = {"training": training, "seed": int(seed), "method": method}
        uncached = parts[training, seed, UNCACHED]
        # of a set to itself it is zero, and has no measurement
        found = measure("fid", [scored], uncached, metrics.fid, confidence)
        row["fid_uncached"] = 0.0 if scored is uncached else float(found["value"].iloc[0])
        rows.append(row | {name: scores[name] for name in ("fid", "alignment", "diversity")})
    groups = pd.DataFrame(rows).groupby(["training", "seed"], sort=False)
    return pd.concat([add_recovered(table) for _, table in groups], ignore_index=True)


def add_recovered(table: pd.DataFrame) -> pd.DataFrame:
    """A table of one training and seed with ``recovered_<metric>`` for every metric of ``RECOVERED``."""
    by_method = table.set_index("method")
    plain, uncached = by_method.loc[PLAIN], by_method.loc[UNCACHED]
    shares = {
        f"recovered_{metric}": (plain[metric] - table[metric]) / ((plain[metric] - uncached[metric]) or float("nan"))
        for metric in RECOVERED
    }
    return table.assign(**shares)


def summarise_recovery(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds, a row per training and method."""
    summary = table.drop(columns="seed").groupby(["training", "method"], sort=False).agg(["mean", "std"])
    summary.columns = summary.columns.map("_".join)
    return summary.reset_index()


class Trainings(NamedTuple):
    """The trainings of one student, each in a folder of its own name."""

    student: ModelFolder
    inputs: AdversarialInputs
    compute: ComputeParams
    folder: Path

    def refine(self, params: AdversarialParams, name: str) -> ModelFolder:
        """The student after an adversarial training without cache."""
        return refine(self.student, self.inputs, params, self.compute, self.folder / name)[0]

    def cotrain(self, params: CotrainingParams, name: str) -> Cotrained:
        """The student with its compensation."""
        return cotrain(self.student, self.inputs, params, self.compute, self.folder / name)


def _contenders(trainings: Trainings, plain: ModelFolder, params: RecoveryParams, seed: int) -> Iterator[Contender]:
    """Each training with its uncached student, plain caching of that student, and what was trained to be cached."""
    seeded, student = {"seed": seed}, trainings.student
    compensation = trainings.cotrain(params.alone.model_copy(update=seeded), f"alone {seed}").compensation
    yield Contender("alone", UNCACHED, student, None)
    yield Contender("alone", PLAIN, student, plain)
    yield Contender("alone", "compensated", student, compensation)
    refined = trainings.refine(params.uncached.model_copy(update=seeded), f"refined {seed}")
    yield Contender("cotraining", UNCACHED, refined, None)
    yield Contender("cotraining", PLAIN, refined, plain)
    compensated = params.cotraining.model_copy(update=seeded)
    for method, training in (("uncompensated", _without_compensation(compensated)), ("compensated", compensated)):
        trained = trainings.cotrain(training, f"{method} {seed}")
        yield Contender("cotraining", method, trained.student, trained.compensation)


def _without_compensation(params: CotrainingParams) -> CotrainingParams:
    """The same co-training of the student on plain caching; there is nothing to fit or to warm up."""
    loop = params.loop.model_copy(update={"steps": params.loop.steps - params.fitting_steps})
    identity = FunctionParams(kind="identity")
    return params.model_copy(update={"compensation_function": identity, "fitting_steps": 0, "loop": loop})


def _plain_caching(student: ModelFolder, bands: Bands, folder: Path) -> ModelFolder:
    save_model(Compensation(student.build().inner_dim, [bands], "identity"), folder)
    return ModelFolder(path=folder, class_name=COMPENSATION)
