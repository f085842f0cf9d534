"""Nodes of the recovery pipeline: train and sample with every seed, score, and say what share was recovered."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import plotly.express as px
import torch
from plotly.graph_objects import Figure

from onex_distill.cache.compensation import Compensation, FunctionParams
from onex_distill.cache.plan import Bands
from onex_distill.distill.stage_two.trainer import CotrainingParams
from onex_distill.engine.compute import ComputeParams
from onex_distill.evaluation.scores import score_images
from onex_distill.metrics.distances import frechet_distance
from onex_distill.models.teacher import TeacherFolder
from onex_distill.pipelines.cache_cotraining.nodes import COMPENSATION, check_band, cotrain_cache
from onex_distill.pipelines.evaluation.params import EvaluationParams, MethodParams
from onex_distill.pipelines.evaluation.sampler import Sampler
from onex_distill.pipelines.recovery.params import RecoveryParams
from onex_distill.pipelines.stage_two.nodes import check_discriminator, refine_adversarially
from onex_distill.pipelines.stage_two.params import ReferencesParams
from onex_distill.shapes.features import extract_features
from onex_distill.storage.files import remove_made
from onex_distill.storage.model_folder import ModelFolder, save_model
from onex_distill.storage.tensor_table import TensorTable

NODE = "train_recovery"
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
    teacher: TeacherFolder,
    recogniser: ModelFolder,
    generator: ModelFolder,
    embeddings: TensorTable,
    references: TensorTable,
    sampled: ReferencesParams,
    empty: TensorTable,
    plan: pd.DataFrame,
    params: RecoveryParams,
    evaluation: EvaluationParams,
    compute: ComputeParams,
    runs: Path,
) -> TensorTable:
    """Images of every contender and seed on the same plan; the index names ``training``, ``method`` and ``seed``.

    Every training and every sampling is a job of its own, so that an interrupted run goes on where it was.
    """
    folder = runs / NODE
    inputs: dict[str, Any] = {
        "student": student,
        "teacher": teacher,
        "recogniser": recogniser,
        "generator": generator,
        "embeddings": embeddings,
        "references": references,
        "sampled": sampled,
        "compute": compute,
        "runs": folder,
    }
    cotrain = partial(cotrain_cache, **inputs, band=check_band(teacher, params.alone))
    refine = partial(refine_adversarially, **inputs, backbone=check_discriminator(params.uncached))
    plain = _plain_caching(student, params.bands, folder / PLAIN)
    sampler = Sampler(teacher, embeddings, empty, plan, evaluation, compute)
    frames, images = [], []
    for seed in params.seeds:
        for one in _contenders(student, plain, params, seed, cotrain, refine):
            name = f"{one.training} {one.method} {seed}"
            method = MethodParams(name=name, steps=params.alone.num_inference_steps, guidance_scale=1.0, nfe=None)
            bands = () if one.compensation is None else params.bands
            table, _ = sampler.sample(one.transformer, method, folder / f"sample {name}", one.compensation, bands)
            frames.append(plan.assign(training=one.training, method=one.method, seed=seed))
            images.append(table.column("image"))
    remove_made(folder / "samples")
    return TensorTable.write(folder / "samples", pd.concat(frames, ignore_index=True), {"image": torch.cat(images)})


def score_recovery(evaluator: ModelFolder, teacher: TensorTable, samples: TensorTable) -> pd.DataFrame:
    """A row a training, seed and method, and the share of plain caching's loss that each recovers of three metrics.

    ``fid_uncached`` is the distance to the images of the uncached student of the same training and seed, from the same
    noise. The share is (plain - method) / (plain - uncached): 0 for plain caching, 1 for no loss; not a number where
    plain caching loses nothing.
    """
    reader = evaluator.load()
    reference = extract_features(reader, teacher.column("image"))
    tables = []
    for (training, seed), index in samples.index.groupby(["training", "seed"], sort=False):
        uncached = extract_features(reader, samples.read("image", index.index[index["method"] == UNCACHED].to_numpy()))
        rows = []
        for method, chosen in index.groupby("method", sort=False):
            images, groups = (
                samples.read("image", chosen.index.to_numpy()),
                torch.tensor(chosen["prompt_row"].to_list()),
            )
            scores = score_images(reader, images, chosen["text"].tolist(), groups, reference)
            # of a set to itself it is zero; rounding would make a little more or less of it
            distance = 0.0 if method == UNCACHED else frechet_distance(extract_features(reader, images), uncached)
            row = {"training": training, "seed": seed, "method": method, "fid_uncached": distance}
            rows.append(row | {name: scores[name] for name in ("fid", "alignment", "diversity")})
        tables.append(add_recovered(pd.DataFrame(rows)))
    return pd.concat(tables, ignore_index=True)


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
    """Mean and standard deviation over seeds, a row a training and method."""
    summary = table.drop(columns="seed").groupby(["training", "method"], sort=False).agg(["mean", "std"])
    summary.columns = summary.columns.map("_".join)
    return summary.reset_index()


def plot_recovery(table: pd.DataFrame) -> Figure:
    """Distance to the uncached images against alignment, a mark a seed, a panel a training."""
    return px.scatter(
        table,
        x="fid_uncached",
        y="alignment",
        color="method",
        symbol="method",
        facet_col="training",
        hover_data="seed",
        height=450,
    )


def _contenders(
    student: ModelFolder,
    plain: ModelFolder,
    params: RecoveryParams,
    seed: int,
    cotrain: Callable[..., tuple[ModelFolder, ModelFolder, pd.DataFrame]],
    refine: Callable[..., tuple[ModelFolder, pd.DataFrame]],
) -> Iterator[Contender]:
    """Each training with its uncached student, plain caching of that student, and what was trained to be cached."""
    seeded = {"seed": seed}
    _, compensation, _ = cotrain(params=params.alone.model_copy(update=seeded), name=f"alone {seed}")
    yield Contender("alone", UNCACHED, student, None)
    yield Contender("alone", PLAIN, student, plain)
    yield Contender("alone", "compensated", student, compensation)
    refined, _ = refine(params=params.uncached.model_copy(update=seeded), name=f"refined {seed}")
    yield Contender("cotraining", UNCACHED, refined, None)
    yield Contender("cotraining", PLAIN, refined, plain)
    compensated = params.cotraining.model_copy(update=seeded)
    for method, training in (("uncompensated", _without_compensation(compensated)), ("compensated", compensated)):
        trained, function, _ = cotrain(params=training, name=f"{method} {seed}")
        yield Contender("cotraining", method, trained, function)


def _without_compensation(params: CotrainingParams) -> CotrainingParams:
    """The same co-training of the student on plain caching; there is nothing to fit or to warm up."""
    loop = params.loop.model_copy(update={"steps": params.loop.steps - params.fitting_steps})
    identity = FunctionParams(kind="identity")
    return params.model_copy(update={"compensation_function": identity, "fitting_steps": 0, "loop": loop})


def _plain_caching(student: ModelFolder, bands: Bands, folder: Path) -> ModelFolder:
    save_model(Compensation(student.build().inner_dim, [bands], "identity"), folder)
    return ModelFolder(path=folder, class_name=COMPENSATION)
