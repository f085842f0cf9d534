"""Images of any diffusers pipeline, from captions and seeds that all pipelines share."""

import time
from collections.abc import Mapping
from typing import Any

import diffusers
import numpy as np
import pandas as pd
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from onex_distill.cache.export import FractionalStableDiffusion3Pipeline
from onex_distill.engine.job import Job
from onex_distill.engine.run import Run
from onex_distill.engine.tables import write_table
from onex_distill.evaluation.anything.params import PipelineParams
from onex_distill.metrics.cost import flops_of
from onex_distill.storage.frame import FrameFile
from onex_distill.storage.image_table import ImageWriter


class PipelineJob(Job):
    """Images of every row of a plan (``text``, ``noise_seed``) by one pipeline.

    Columns beside them: ``seconds`` per image of the whole call, text encoding and decoding included, and ``gflops``
    per image, counted by torch on one image more.
    """

    params: PipelineParams
    plan: FrameFile
    batch_size: int

    def run(self, run: Run) -> None:
        """Write the table ``samples``."""
        pipeline = open_pipeline(self.params).to(run.ranks.device)
        pipeline.set_progress_bar_config(disable=True)
        plan = self.plan.read()
        settings = {"num_inference_steps": self.params.steps, "guidance_scale": self.params.guidance_scale}
        given = {name: value for name, value in settings.items() if value is not None}

        def images_of(part: pd.DataFrame) -> Tensor:
            seeds = [torch.Generator().manual_seed(int(seed)) for seed in part["noise_seed"]]
            images = pipeline(part["text"].tolist(), generator=seeds, output_type="np", **given).images
            return torch.from_numpy((np.asarray(images) * 255).round().astype(np.uint8)).permute(0, 3, 1, 2)

        gflops = flops_of(lambda: images_of(plan.iloc[:1])) / 1e9

        def sample(rows: range) -> Mapping[str, Tensor]:
            began = time.perf_counter()
            images = images_of(plan.iloc[rows.start : rows.stop])
            seconds = (time.perf_counter() - began) / len(rows)
            costs = {"seconds": torch.full((len(rows),), seconds), "gflops": torch.full((len(rows),), gflops)}
            return {"image": images, **costs}

        write_table(run, "samples", plan, self.batch_size, sample, ImageWriter)


def check_pipeline(params: PipelineParams) -> None:
    """Raise ValueError for a source that is no diffusers pipeline, and for a scheduler that diffusers does not have."""
    _class_name(params.source)
    if params.scheduler is not None:
        _scheduler(params.scheduler)


def open_pipeline(params: PipelineParams) -> Any:
    """A pipeline from its folder or hub id, safetensors alone, with the scheduler that is asked for.

    Raises ValueError with one line when diffusers cannot open it, or has no such scheduler.
    """
    ours = _class_name(params.source) == FractionalStableDiffusion3Pipeline.__name__
    try:
        opener = FractionalStableDiffusion3Pipeline if ours else DiffusionPipeline
        pipeline = opener.from_pretrained(params.source, use_safetensors=True)
    except Exception as error:  # diffusers raises almost anything for a folder of something else
        raise _refusal(params.source, error) from error
    if params.scheduler is not None:
        pipeline.scheduler = _scheduler(params.scheduler).from_config(pipeline.scheduler.config)
    return pipeline


def _scheduler(name: str) -> Any:
    kind = getattr(diffusers, name, None)
    if kind is None or not hasattr(kind, "set_timesteps"):
        raise ValueError(f"diffusers has no scheduler {name!r}; correct it, or give null")
    return kind


def _class_name(source: str) -> str:
    """The class that a folder, or a pipeline of the hub, names itself. Raises ValueError where it is none."""
    try:
        config = DiffusionPipeline.load_config(source)
    except Exception as error:  # of the disk, of JSON, or of whichever HTTP library the hub uses
        raise _refusal(source, error) from error
    name = str(config.get("_class_name"))
    if not (name == FractionalStableDiffusion3Pipeline.__name__ or hasattr(diffusers, name)):
        raise ValueError(f"{source} cannot be opened as a diffusers pipeline: diffusers has no class {name}")
    return name


def _refusal(source: str, error: Exception) -> ValueError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return ValueError(f"{source} cannot be opened as a diffusers pipeline: {reason}")
