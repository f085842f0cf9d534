"""Nodes that turn a method into samples and their cost."""

from pathlib import Path

import pandas as pd

from onex_distill.cache.compensation import Compensation
from onex_distill.cache.plan import plan_for_budget
from onex_distill.engine.compute import ComputeParams
from onex_distill.evaluation.inputs import SamplingInputs
from onex_distill.evaluation.methods import Sampler, Samples, decode
from onex_distill.evaluation.params import MethodParams
from onex_distill.pipelines.shared.params import TeacherSamplingParams
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable


def decode_teacher(
    inputs: SamplingInputs, latents: TensorTable, sampling: TeacherSamplingParams, compute: ComputeParams, runs: Path
) -> Samples:
    """Images of the precomputed teacher latents.

    Args:
        inputs: What is sampled with.
        latents: Latents, a row per image.
        sampling: Steps and guidance that made the latents.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        The images and their cost.
    """
    steps, scale = sampling.num_inference_steps, sampling.guidance_scale
    method = MethodParams(name=f"teacher_{steps}x2", steps=steps, guidance_scale=scale, alpha=1.0, nfe=None)
    return decode(inputs, latents, method, compute, runs)


def sample_student(
    transformer: ModelFolder,
    inputs: SamplingInputs,
    plan: pd.DataFrame,
    method: MethodParams,
    compute: ComputeParams,
    runs: Path,
) -> Samples:
    """Samples of a transformer that runs every block in every step.

    Args:
        transformer: The velocity network.
        inputs: What is sampled with.
        plan: A row per image: its caption and noise seed.
        method: Steps, guidance and bands.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        The images and their cost.
    """
    return Sampler(inputs, plan, compute).sample(transformer, method, runs)


def sample_null(
    inputs: SamplingInputs, plan: pd.DataFrame, method: MethodParams, compute: ComputeParams, runs: Path
) -> Samples:
    """The teacher on the same captions with other noise: the floor of every distance.

    Args:
        inputs: What is sampled with.
        plan: A row per image: its caption and noise seed.
        method: Steps, guidance and bands.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        The images and their cost.
    """
    seeds = range(inputs.null_seed, inputs.null_seed + len(plan))
    other = plan.assign(noise_seed=list(seeds))
    return Sampler(inputs, other, compute).sample(inputs.teacher.transformer, method, runs)


def sample_teacher(
    inputs: SamplingInputs, plan: pd.DataFrame, method: MethodParams, compute: ComputeParams, runs: Path
) -> Samples:
    """The undistilled teacher with other steps or another guidance.

    Args:
        inputs: What is sampled with.
        plan: A row per image: its caption and noise seed.
        method: Steps, guidance and bands.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        The images and their cost.
    """
    return Sampler(inputs, plan, compute).sample(inputs.teacher.transformer, method, runs)


def sample_fractional(
    transformer: ModelFolder,
    compensation: ModelFolder,
    inputs: SamplingInputs,
    plan: pd.DataFrame,
    method: MethodParams,
    compute: ComputeParams,
    runs: Path,
) -> Samples:
    """Samples of a student that reuses bands: those of the method's budget, or the first that it was trained for.

    ``{nfe}`` in the method's name becomes what these bands, which were trained, cost.

    Args:
        transformer: The velocity network.
        compensation: What corrects reused residuals.
        inputs: What is sampled with.
        plan: A row per image: its caption and noise seed.
        method: Steps, guidance and bands.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        The images and their cost.
    """
    candidates = Compensation.load_candidates(compensation.path)
    bands = candidates[0]
    if method.nfe is not None:
        bands = plan_for_budget(method.nfe, candidates, inputs.teacher.num_layers, method.steps).bands
    method = method.named(bands, inputs.teacher.num_layers)
    return Sampler(inputs, plan, compute).sample(transformer, method, runs, compensation, bands)
