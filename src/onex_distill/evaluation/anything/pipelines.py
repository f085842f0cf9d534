"""Images of any diffusers pipeline, from captions and seeds that all pipelines share."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from onex_distill.cache.export import FractionalStableDiffusion3Pipeline
from onex_distill.engine.job import Job
from onex_distill.engine.run import Run
from onex_distill.engine.tables import write_table
from onex_distill.evaluation.anything.params import PipelineParams
from onex_distill.storage.frame import FrameFile
from onex_distill.storage.image_table import ImageWriter


class PipelineJob(Job):
    """Images of every row of a plan (``text``, ``noise_seed``) by one pipeline."""

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

        def sample(rows: range) -> Mapping[str, Tensor]:
            part = plan.iloc[rows.start : rows.stop]
            seeds = [torch.Generator().manual_seed(int(seed)) for seed in part["noise_seed"]]
            images = pipeline(part["text"].tolist(), generator=seeds, output_type="np", **given).images
            return {"image": torch.from_numpy((np.asarray(images) * 255).round().astype(np.uint8)).permute(0, 3, 1, 2)}

        write_table(run, "samples", plan, self.batch_size, sample, ImageWriter)


def open_pipeline(params: PipelineParams) -> Any:
    """A pipeline from its folder or hub id, safetensors alone, with the scheduler that is asked for.

    Raises ValueError with one line when diffusers cannot open it, or has no such scheduler.
    """
    folder = Path(params.source)
    try:
        opener = FractionalStableDiffusion3Pipeline if _is_ours(folder) else DiffusionPipeline
        pipeline = opener.from_pretrained(params.source, use_safetensors=True)
    except Exception as error:  # diffusers raises almost anything for a folder of something else
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"{params.source} cannot be opened as a diffusers pipeline: {reason}") from error
    if params.scheduler is not None:
        kind = getattr(diffusers, params.scheduler, None)
        if kind is None or not hasattr(kind, "set_timesteps"):
            raise ValueError(f"diffusers has no scheduler {params.scheduler!r}; correct it, or give null")
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    return pipeline


def _is_ours(folder: Path) -> bool:
    index = folder / "model_index.json"
    return index.is_file() and json.loads(index.read_text()).get("_class_name") == "FractionalStableDiffusion3Pipeline"
