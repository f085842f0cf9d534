"""Nodes of stage two."""

from pathlib import Path

import pandas as pd
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

from onex_distill.engine.stage_two import AdversarialParams, AdversarialTrainer, train_adversarially
from onex_distill.models.discriminator import Discriminator
from onex_distill.models.sampling import sample_rows
from onex_distill.models.tiny import seeded
from onex_distill.pipelines.stage_two.params import ReferencesParams
from onex_distill.shapes.networks import ShapesReader
from onex_distill.storage.prompt_table import rows_of_split
from onex_distill.storage.tensor_table import TensorTable


def sample_references(
    generator: SD3Transformer2DModel,
    teacher: StableDiffusion3Pipeline,
    prompts: pd.DataFrame,
    embeddings: TensorTable,
    params: ReferencesParams,
) -> TensorTable:
    """The real side of stage two: latents of the reference generator on captions of the reference split."""
    rows = torch.tensor(rows_of_split(prompts, "reference"))
    draws = torch.Generator().manual_seed(params.seed)
    chosen = rows[torch.randint(len(rows), (params.count,), generator=draws)].tolist()
    plan = pd.DataFrame(
        {
            "prompt_row": chosen,
            "prompt_id": prompts["id"].iloc[chosen].to_numpy(),
            "noise_seed": range(params.seed, params.seed + params.count),
        }
    )
    shift = teacher.scheduler.config.shift
    return sample_rows(generator, embeddings, plan, shift, params.num_inference_steps, params.batch_size)


def refine_adversarially(
    student: SD3Transformer2DModel,
    teacher: StableDiffusion3Pipeline,
    recogniser: ShapesReader,
    embeddings: TensorTable,
    references: TensorTable,
    params: AdversarialParams,
    runs: Path,
    name: str,
) -> tuple[SD3Transformer2DModel, pd.DataFrame]:
    """Refine the student's detail on its own inference path against the reference images."""
    with seeded(params.seed):
        discriminator = Discriminator(recogniser, params.discriminator_hidden)
        trainer = AdversarialTrainer(student, teacher.vae, discriminator, teacher.scheduler.config.shift, params)
    return train_adversarially(trainer, embeddings, references, runs / name)
