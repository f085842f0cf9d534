"""Nodes of cache co-training."""

from pathlib import Path
from typing import Literal

import pandas as pd
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

from onex_distill.engine.stage_two import AdversarialTrainer, CotrainingParams, train_adversarially
from onex_distill.models.block_cache import BlockCache
from onex_distill.models.cache_plan import check_bands, reuse_after_first
from onex_distill.models.compensation import Compensation
from onex_distill.models.discriminator import Discriminator
from onex_distill.models.export import FractionalStableDiffusion3Pipeline
from onex_distill.models.tiny import seeded
from onex_distill.parameters import Params
from onex_distill.pipelines.precompute.params import TextParams
from onex_distill.shapes.networks import ShapesReader
from onex_distill.storage.tensor_table import TensorTable


class StartParams(Params):
    """Which student co-training starts from: stage one (the paper's way) or stage two."""

    stage: Literal["stage_one", "stage_two"]


def check_band(teacher: StableDiffusion3Pipeline, params: CotrainingParams) -> dict[str, int]:
    """Refuse a band that the transformer cannot skip before any training; describe the accepted one."""
    num_layers = len(teacher.transformer.transformer_blocks)
    check_bands([params.cached_blocks], num_layers)
    start, stop = params.cached_blocks
    return {"num_layers": num_layers, "start": start, "stop": stop}


def choose_start(
    stage_one: SD3Transformer2DModel, stage_two: SD3Transformer2DModel, params: StartParams
) -> SD3Transformer2DModel:
    """The student that co-training starts from."""
    return stage_one if params.stage == "stage_one" else stage_two


def cotrain_cache(
    student: SD3Transformer2DModel,
    band: dict[str, int],
    teacher: StableDiffusion3Pipeline,
    recogniser: ShapesReader,
    embeddings: TensorTable,
    references: TensorTable,
    params: CotrainingParams,
    runs: Path,
    name: str,
) -> tuple[SD3Transformer2DModel, Compensation, pd.DataFrame]:
    """Train the compensation, then compensation and student together, on the cached inference path."""
    bands = ((band["start"], band["stop"]),)
    with seeded(params.seed):
        compensation = Compensation(student.inner_dim, [bands], **params.compensation_function.model_dump())
        cache = BlockCache(student, reuse_after_first(bands, params.num_inference_steps), compensation).attach()
        discriminator = Discriminator(recogniser, params.discriminator_hidden)
        shift = teacher.scheduler.config.shift
        trainer = AdversarialTrainer(student, teacher.vae, discriminator, shift, params, cache)
    student, losses = train_adversarially(trainer, embeddings, references, runs / name)
    return student, compensation.eval(), losses


def export_student(
    student: SD3Transformer2DModel,
    compensation: Compensation,
    teacher: StableDiffusion3Pipeline,
    params: CotrainingParams,
    text: TextParams,
) -> FractionalStableDiffusion3Pipeline:
    """The fractional student as a diffusers pipeline with the teacher's text encoders and autoencoder."""
    return FractionalStableDiffusion3Pipeline(
        **{**teacher.components, "transformer": student},
        compensation=compensation,
        num_inference_steps=params.num_inference_steps,
        max_sequence_length=text.max_sequence_length,
    )
