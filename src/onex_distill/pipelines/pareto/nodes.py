"""Nodes that measure students along their budgets, and the band search."""

import pandas as pd
import plotly.express as px
from diffusers import SD3Transformer2DModel
from plotly.graph_objects import Figure

from onex_distill.cache.compensation import Compensation
from onex_distill.evaluation.features import ScorersParams
from onex_distill.evaluation.inputs import CompensationSets, SamplingInputs, StudyInputs
from onex_distill.evaluation.measures import MetricsParams
from onex_distill.evaluation.scored import ConfidenceParams
from onex_distill.evaluation.scores import Scoring
from onex_distill.evaluation.studies.fronts import TIMES
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable


def gather_study_inputs(
    sampling: SamplingInputs,
    reference: TensorTable,
    scorers: ScorersParams,
    metrics: MetricsParams,
    confidence: ConfidenceParams,
) -> StudyInputs:
    """What a study samples with and scores by.

    Args:
        sampling: What is sampled with.
        reference: Features of the reference images.
        scorers: The networks that read images.
        metrics: The settings of every metric.
        confidence: Level, draws and groups of intervals.

    Returns:
        Both in one.
    """
    scoring = Scoring(scorers=scorers, metrics=metrics, confidence=confidence, reference=reference.handle)
    return StudyInputs(sampling=sampling, scoring=scoring)


def plain_caching(student: ModelFolder, dial: ModelFolder) -> Compensation:
    """Training-free caching: nothing is compensated, in the same bands as the dial's."""
    network: SD3Transformer2DModel = student.build()
    return Compensation(network.inner_dim, Compensation.load_candidates(dial.path), "identity")


def gather_compensations(**folders: ModelFolder) -> CompensationSets:
    """The compensations of all fronts."""
    return CompensationSets(folders=tuple(folders.items()))


def plot_band_search(table: pd.DataFrame) -> Figure:
    """Measured against predicted damage, a mark per set of bands; the title says how well their ranks agree."""
    return px.scatter(
        table.assign(bands=table["bands"].map(lambda bands: str([list(band) for band in bands]))),
        x="predicted",
        y="fid",
        color="choice",
        hover_name="bands",
        title=f"rank correlation {table['rank_correlation'].iloc[0]:.2f}",
        labels={"predicted": "predicted damage (latents)", "fid": "FID to the uncached images"},
        height=500,
    ).update_traces(marker_size=10)


def plot_pareto(table: pd.DataFrame) -> Figure:
    """FID, alignment, diversity and times per image against evaluations by FLOPs, a line per method."""
    measures = [name for name in ("fid", "alignment", "diversity", *TIMES) if name in table]
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
        height=1000,
    )
    figure.for_each_annotation(lambda title: title.update(text=title.text.removeprefix("measure=")))
    return figure.update_yaxes(matches=None, showticklabels=True)
