"""Nodes that turn a method into samples and their cost."""

from pathlib import Path

import pandas as pd

from onex_distill.cache.compensation import Compensation
from onex_distill.cache.plan import plan_for_budget
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.evaluation.sampling_jobs import DecodingJob
from onex_distill.models.teacher import TeacherFolder
from onex_distill.pipelines.evaluation.params import EvaluationParams, MethodParams
from onex_distill.pipelines.evaluation.sampler import Sampler, Samples, cost_of
from onex_distill.pipelines.precompute.params import TeacherSamplingParams
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable


def decode_teacher(
    teacher: TeacherFolder,
    latents: TensorTable,
    embeddings: TensorTable,
    sampling: TeacherSamplingParams,
    params: EvaluationParams,
    compute: ComputeParams,
    runs: Path,
) -> Samples:
    """Images of the precomputed teacher latents."""
    method = MethodParams(
        name=f"teacher_{sampling.num_inference_steps}x2",
        steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
        nfe=None,
    )
    job = DecodingJob(
        folder=runs / "decode_teacher",
        compute=compute,
        autoencoder=teacher.autoencoder,
        latents=latents.handle,
        method=method.name,
        batch_size=params.batch_size,
    )
    images = TensorTable(launch(job) / "samples")
    return images, cost_of(teacher.transformer, method, teacher.shift, embeddings, images)


def sample_student(
    transformer: ModelFolder,
    teacher: TeacherFolder,
    embeddings: TensorTable,
    empty: TensorTable,
    plan: pd.DataFrame,
    method: MethodParams,
    params: EvaluationParams,
    compute: ComputeParams,
    runs: Path,
    name: str,
) -> Samples:
    """Samples of a transformer that runs every block in every step."""
    return Sampler(teacher, embeddings, empty, plan, params, compute).sample(transformer, method, runs / name)


def sample_teacher_in_few_steps(
    teacher: TeacherFolder,
    embeddings: TensorTable,
    empty: TensorTable,
    plan: pd.DataFrame,
    method: MethodParams,
    params: EvaluationParams,
    compute: ComputeParams,
    runs: Path,
    name: str,
) -> Samples:
    """The undistilled teacher with a student's steps."""
    return Sampler(teacher, embeddings, empty, plan, params, compute).sample(teacher.transformer, method, runs / name)


def sample_fractional(
    transformer: ModelFolder,
    compensation: ModelFolder,
    teacher: TeacherFolder,
    embeddings: TensorTable,
    empty: TensorTable,
    plan: pd.DataFrame,
    method: MethodParams,
    params: EvaluationParams,
    compute: ComputeParams,
    runs: Path,
    name: str,
) -> Samples:
    """Samples of a student that reuses bands: those of the method's budget, or the first that it was trained for."""
    candidates = Compensation.load_candidates(compensation.path)
    bands = candidates[0]
    if method.nfe is not None:
        bands = plan_for_budget(method.nfe, candidates, teacher.num_layers, method.steps).bands
    sampler = Sampler(teacher, embeddings, empty, plan, params, compute)
    return sampler.sample(transformer, method, runs / name, compensation, bands)
