"""Is the embedded teacher worth distilling? The evaluator on rendered images, the teacher guided and unguided."""

from typing import Any

import pandas as pd
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image
from torch import Tensor

from onex_distill.flow.sigmas import step_sigmas
from onex_distill.metrics.grids import image_grid
from onex_distill.models.noise import latent_shape
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.sampling import Guidance, decode_latents, sample_latents
from onex_distill.models.text import encode_prompts
from onex_distill.shapes.attributes import alignment, dominant_share, entropies, total_variation
from onex_distill.shapes.captions import named_attributes
from onex_distill.shapes.networks import ShapesReader
from onex_distill.shapes.render import render
from onex_distill.shapes.world import FREE, NAMED, VALUES, Attributes, sample_attributes


@torch.no_grad()
def measure_teacher(
    teacher: StableDiffusion3Pipeline,
    evaluator: ShapesReader,
    recogniser: ShapesReader,
    captions: pd.DataFrame,
    seed: int,
    images: int,
    batch_size: int,
    num_inference_steps: int,
    guidance_scale: float,
) -> tuple[dict[str, Any], Image.Image]:
    """Acceptance figures, and a grid with rows rendered, reconstructed, unguided, guided, on held-out captions.

    Args:
        teacher: The teacher's folder.
        evaluator: The network that reads attributes for metrics.
        recogniser: The network that reads attributes for training.
        captions: A row per caption.
        seed: Decides every draw.
        images: Images per row of the comparison.
        batch_size: Images at once.
        num_inference_steps: Steps of sampling.
        guidance_scale: Guidance of the guided images.

    Returns:
        The figures and the grid.
    """
    draws = torch.Generator().manual_seed(seed)
    scenes = sample_attributes(4 * images, draws)
    rendered = render(scenes, draws)
    posterior = teacher.vae.encode(rendered[:images] * 2 - 1).latent_dist.mean
    reconstructed = (teacher.vae.decode(posterior).sample / 2 + 0.5).clamp(0, 1)
    some = {name: values[:images] for name, values in scenes.items()}
    heldout = captions.loc[captions["split"] == "heldout", "text"].tolist()
    texts = [heldout[i % len(heldout)] for i in range(images)]
    named = named_attributes(texts)
    noise = torch.randn((images, *latent_shape(teacher.transformer)), generator=draws)
    samples = {
        name: _sample(teacher, texts, noise, num_inference_steps, scale, batch_size)
        for name, scale in (("unguided", 1.0), ("guided", guidance_scale))
    }
    report = {
        "guidance_scale": guidance_scale,
        "num_inference_steps": num_inference_steps,
        "images": images,
        "evaluator_accuracy": _accuracy(evaluator, rendered, scenes),
        "recogniser_accuracy": _accuracy(recogniser, rendered, scenes),
        "reconstruction_accuracy": _accuracy(evaluator, reconstructed, some),
        **{name: _describe(evaluator.read(sample), named) for name, sample in samples.items()},
    }
    grid = image_grid([rendered[:16], reconstructed[:16], *[sample[:16] for sample in samples.values()]])
    return report, grid


def _sample(
    teacher: StableDiffusion3Pipeline, texts: list[str], noise: Tensor, steps: int, scale: float, batch_size: int
) -> Tensor:
    length = teacher.tokenizer_3.model_max_length
    embeds, pooled = encode_prompts(teacher, [*texts, ""], length)
    prompts, empty = PromptBatch(embeds[:-1], pooled[:-1]), PromptBatch(embeds[-1:], pooled[-1:])
    sigmas = step_sigmas(steps, teacher.scheduler.config.shift)
    guidance = Guidance(scale, empty) if scale > 1 else None
    batches = []
    for rows in torch.arange(len(texts)).split(batch_size):
        latents = sample_latents(teacher.transformer, noise[rows], sigmas, prompts[rows], guidance)
        batches.append(decode_latents(teacher.vae, latents).clamp(0, 1))
    return torch.cat(batches)


def _accuracy(reader: ShapesReader, images: Tensor, scenes: Attributes) -> dict[str, float]:
    """Share of images read right, for every attribute and for all named ones together."""
    batches = [reader.read(batch) for batch in images.split(256)]
    read = {name: torch.cat([batch[name] for batch in batches]) for name in VALUES}
    right = {name: float((read[name] == scenes[name]).float().mean()) for name in VALUES}
    return {**right, "all_named": alignment(read, {name: scenes[name] for name in NAMED})}


def _describe(read: Attributes, named: Attributes) -> dict[str, Any]:
    return {
        "alignment": alignment(read, named),
        "entropy": entropies(read, named),
        "total_variation": {name: total_variation(name, read, named) for name in FREE},
        "dominant_share": {name: dominant_share(name, read, named) for name in FREE},
    }
