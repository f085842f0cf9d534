"""Nodes of the generate pipeline."""

import pandas as pd
import torch
from PIL import Image
from pydantic import PositiveInt
from torchvision.transforms.functional import to_tensor
from tqdm import tqdm

from onex_distill.cache.export import FractionalStableDiffusion3Pipeline
from onex_distill.metrics.grids import image_grid
from onex_distill.models.text import count_truncated
from onex_distill.parameters import Params, Seed
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.prompt_table import build_prompt_table


class GenerationParams(Params):
    """Noise seed, images a caption, and captions a batch."""

    seed: Seed
    images_per_caption: PositiveInt
    batch_size: PositiveInt


def generate_images(
    student: ModelFolder, captions: pd.DataFrame, params: GenerationParams
) -> tuple[dict[str, Image.Image], Image.Image]:
    """PNGs named by caption number and image number, and a sheet with one row a caption."""
    prompts = build_prompt_table(captions)["text"].tolist()
    pipeline: FractionalStableDiffusion3Pipeline = student.load()
    count_truncated(pipeline, prompts, pipeline.config.max_sequence_length)
    pipeline.set_progress_bar_config(disable=True)
    per_caption = params.images_per_caption
    images: list[Image.Image] = []
    for start in tqdm(range(0, len(prompts), params.batch_size), desc="generating", unit="batch"):
        batch = prompts[start : start + params.batch_size]
        first = start * per_caption
        seeds = range(params.seed + first, params.seed + first + len(batch) * per_caption)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        images += pipeline(batch, num_images_per_prompt=per_caption, generator=generators).images
    names = [f"{i // per_caption:05d}-{i % per_caption:02d}" for i in range(len(images))]
    tensors = torch.stack([to_tensor(image) for image in images])
    return dict(zip(names, images, strict=True)), image_grid(list(tensors.split(per_caption)))
