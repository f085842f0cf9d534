"""Nodes of the ablation: images of what the students should become, and the picture."""

from pathlib import Path

import pandas as pd
import plotly.express as px
from plotly.graph_objects import Figure

from onex_distill.engine.compute import ComputeParams
from onex_distill.evaluation.inputs import SamplingInputs
from onex_distill.evaluation.methods import Sampler
from onex_distill.evaluation.params import MethodParams
from onex_distill.evaluation.report.columns import PRIMARY, SPREAD
from onex_distill.evaluation.studies.ablation_params import TARGET, VARIED, AblationParams
from onex_distill.flow.guidance import as_sigma
from onex_distill.pipelines.shared.params import TeacherSamplingParams
from onex_distill.storage.files import remove_made
from onex_distill.storage.image_table import ImageTable, join_tables


def sample_targets(
    inputs: SamplingInputs,
    plan: pd.DataFrame,
    params: AblationParams,
    sampling: TeacherSamplingParams,
    compute: ComputeParams,
    folder: Path,
) -> ImageTable:
    """Images of what the students should become: the teacher, guided up to every alpha of the settings.

    Args:
        inputs: What is sampled with.
        plan: A row per image: its caption and noise seed.
        params: The settings, validated.
        sampling: The teacher's steps and guidance.
        compute: Ranks, precision and sharding.
        folder: The run's folder; a finished run in it is taken as it is.

    Returns:
        Images of every target; the index names its alpha and axis.
    """
    sampler, teacher = Sampler(inputs, plan, compute), inputs.teacher
    frames, images = [], []
    for alpha, axis in params.targets():
        method = MethodParams(
            name=f"alpha_{alpha}-{axis}",
            steps=sampling.num_inference_steps,
            guidance_scale=sampling.guidance_scale,
            alpha=as_sigma(alpha, axis, teacher.shift),
            nfe=None,
        )
        samples, _ = sampler.sample(teacher.transformer, method, folder / method.name)
        frames.append(plan.assign(**dict(zip(TARGET, (alpha, axis), strict=True))))
        images.append(samples)
    remove_made(folder / "samples")
    return join_tables(images, pd.concat(frames, ignore_index=True), folder / "samples")


def plot_alignment_against_diversity(summary: pd.DataFrame, targets: pd.DataFrame) -> Figure:
    """Two curves along alpha, of the students and of what they should become; the other settings beside them.

    Alignment and diversity are the first of their kind that were measured; bars are deviations over seeds.
    """
    score = next((name for name in PRIMARY if f"{name}_mean" in summary), None)
    spread = next((name for name in SPREAD if f"{name}_mean" in summary), None)
    if score is None or spread is None:
        return Figure(layout_title_text="no measure of alignment and diversity: see params:metrics")
    counts = {name: summary[name].mode()[0] for name in VARIED if name != "alpha"}
    on_curve = (summary[list(counts)] == pd.Series(counts)).all(axis=1)
    labels = summary.apply(lambda row: ", ".join(f"{name} {row[name]}" for name in VARIED), axis=1)
    figure = px.scatter(
        summary.assign(setting=labels),
        x=f"{spread}_mean",
        y=f"{score}_mean",
        error_x=f"{spread}_std",
        error_y=f"{score}_std",
        color="setting",
        height=600,
    )
    curve = summary[on_curve].sort_values("alpha")
    figure.add_scatter(x=curve[f"{spread}_mean"], y=curve[f"{score}_mean"], mode="lines", name="students along alpha")
    front = targets[targets["alpha_axis"] == counts["alpha_axis"]].sort_values("alpha")
    figure.add_scatter(
        x=front[spread],
        y=front[score],
        text=front["alpha"],
        mode="lines+markers",
        name="their targets: the teacher along alpha",
    )
    return figure
