"""Samples of any method under the same conditions, and what they cost."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from onex_distill.cache.plan import Bands
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.evaluation.cost import cost_of
from onex_distill.evaluation.inputs import SamplingInputs
from onex_distill.evaluation.jobs import DecodingJob, latents_job
from onex_distill.evaluation.params import MethodParams
from onex_distill.storage.image_table import ImageTable
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable

Samples = tuple[ImageTable, dict[str, Any]]
SECONDS = "seconds_per_image"


@dataclass(frozen=True)
class Sampler:
    """What all methods share, captions and noise included, and where they run."""

    inputs: SamplingInputs
    plan: pd.DataFrame
    compute: ComputeParams

    def sample(
        self,
        transformer: ModelFolder,
        method: MethodParams,
        folder: Path,
        compensation: ModelFolder | None = None,
        bands: Bands = (),
    ) -> Samples:
        """Images of a transformer that reuses ``bands`` after the first step, and their cost.

        Args:
            transformer: the velocity network.
            method: its name, steps and guidance.
            folder: of the run.
            compensation: of the bands; without it every block runs.
            bands: half-open ranges of blocks.

        Returns:
            The images, their index with the column ``method``, and the row of the cost table.
        """
        inputs, teacher = self.inputs, self.inputs.teacher
        plan = self.plan.assign(method=method.name)
        latents = latents_job(inputs, transformer, plan, method, inputs.batch_size, self.compute, folder)
        images_of = {"autoencoder": teacher.autoencoder, "compensation": compensation, "bands": bands}
        job = latents.model_copy(update=images_of)
        images = ImageTable(launch(job) / "samples")
        cost = cost_of(transformer, method, teacher.shift, inputs.embeddings.open(), compensation, bands)
        return images, cost | {SECONDS: median_seconds(images)}


def decode(
    inputs: SamplingInputs, latents: TensorTable, method: MethodParams, compute: ComputeParams, folder: Path
) -> Samples:
    """Images of latents that the teacher made already, and the cost of both.

    Args:
        inputs: What is sampled with.
        latents: The latents.
        method: What made them.
        compute: Ranks, precision and sharding.
        folder: The run's folder; a finished run in it is taken as it is.

    Returns:
        The images and their cost.
    """
    teacher = inputs.teacher
    job = DecodingJob(
        folder=folder,
        compute=compute,
        autoencoder=teacher.autoencoder,
        latents=latents.handle,
        method=method.name,
        batch_size=inputs.batch_size,
        files=True,
    )
    images = ImageTable(launch(job) / "samples")
    cost = cost_of(teacher.transformer, method, teacher.shift, inputs.embeddings.open())
    return images, cost | {SECONDS: median_seconds(images)}


def median_seconds(images: ImageTable) -> float:
    """Median seconds per image, transformer and decoding, without text encoding."""
    return float(images.index["seconds"].median())
