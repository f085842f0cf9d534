"""Nodes that measure students along their budgets."""

from pathlib import Path

import pandas as pd
import plotly.express as px
from diffusers import SD3Transformer2DModel
from plotly.graph_objects import Figure

from onex_distill.cache.compensation import Compensation
from onex_distill.engine.compute import ComputeParams
from onex_distill.models.teacher import TeacherFolder
from onex_distill.pipelines.evaluation import nodes as metrics
from onex_distill.pipelines.evaluation.params import EvaluationParams, MethodParams
from onex_distill.pipelines.evaluation.sampler import Sampler
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable

SECONDS = "seconds_per_image"
COLUMNS = ["method", "bands", "nfe", "nfe_flops", "fid", "alignment", "diversity", SECONDS]


def plain_caching(student: ModelFolder, dial: ModelFolder) -> Compensation:
    """Training-free caching: nothing is compensated, in the same bands as the dial's."""
    network: SD3Transformer2DModel = student.build()
    return Compensation(network.inner_dim, Compensation.load_candidates(dial.path), "identity")


def measure_front(
    student: ModelFolder,
    compensation: ModelFolder,
    evaluator: ModelFolder,
    teacher_samples: TensorTable,
    teacher: TeacherFolder,
    embeddings: TensorTable,
    empty: TensorTable,
    plan: pd.DataFrame,
    method: MethodParams,
    params: EvaluationParams,
    compute: ComputeParams,
    runs: Path,
    name: str,
) -> pd.DataFrame:
    """A row for every set of bands that the compensation was trained for, each a budget; without seconds."""
    sampler = Sampler(teacher, embeddings, empty, plan, params, compute)
    samples, costs, bands = {}, {}, {}
    for number, candidate in enumerate(Compensation.load_candidates(compensation.path)):
        text = str([list(band) for band in candidate])
        label = f"{method.name} {text}"
        budget = method.model_copy(update={"name": label})
        samples[label], costs[label] = sampler.sample(
            student, budget, runs / name / str(number), compensation, candidate
        )
        bands[label] = text
    table = score(evaluator, teacher_samples, samples).merge(metrics.collect_costs(**costs), on="method")
    table = table.assign(bands=table["method"].map(bands), method=method.name)
    return table[[column for column in COLUMNS if column != SECONDS]]


def score(evaluator: ModelFolder, reference: TensorTable, samples: dict[str, TensorTable]) -> pd.DataFrame:
    """Distance to the reference's images, alignment and diversity, a row a method."""
    fid = metrics.compute_fid(evaluator, **{metrics.REFERENCE: reference, **samples})
    alignment = metrics.compute_alignment(evaluator, **samples)
    return fid.merge(alignment, on="method").merge(metrics.compute_diversity(evaluator, **samples), on="method")


def collect_fronts(latency: pd.DataFrame, **fronts: pd.DataFrame) -> pd.DataFrame:
    """All methods in one table, a row a method and budget, with the seconds of each."""
    seconds = latency.set_index(["front", "bands"])[SECONDS]
    timed = [table.assign(**{SECONDS: table["bands"].map(seconds[front])}) for front, table in fronts.items()]
    return pd.concat(timed)[COLUMNS].sort_values(["method", "nfe"], ignore_index=True)


def plot_pareto(table: pd.DataFrame) -> Figure:
    """FID, alignment, diversity and latency against evaluations by FLOPs, a line a method."""
    measures = ["fid", "alignment", "diversity", SECONDS]
    long = table.melt(["method", "nfe", "nfe_flops"], measures, var_name="measure")
    figure = px.line(
        long.sort_values("nfe_flops"),
        x="nfe_flops",
        y="value",
        color="method",
        facet_col="measure",
        facet_col_wrap=2,
        facet_col_spacing=0.08,
        category_orders={"measure": measures},
        labels={"value": ""},
        hover_data="nfe",
        markers=True,
        height=700,
    )
    figure.for_each_annotation(lambda title: title.update(text=title.text.removeprefix("measure=")))
    return figure.update_yaxes(matches=None, showticklabels=True)
