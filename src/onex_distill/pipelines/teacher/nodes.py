"""Nodes of the teacher pipeline."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image

from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.models.teacher import TeacherFolder
from onex_distill.pipelines.teacher.params import AcceptanceParams, TrainingImagesParams
from onex_distill.pretraining import training as pretraining
from onex_distill.pretraining.acceptance import measure_teacher
from onex_distill.pretraining.architecture import ArchitectureParams
from onex_distill.shapes.captions import all_captions
from onex_distill.shapes.render import render
from onex_distill.shapes.world import NAMED, sample_free_attributes
from onex_distill.storage.frame import store_frame
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable

Trained = tuple[ModelFolder, pd.DataFrame]


def build_captions() -> pd.DataFrame:
    """Every caption of ShapesWorld with its split and attributes."""
    return all_captions()


def train_evaluator(params: pretraining.ReaderParams, compute: ComputeParams, runs: Path) -> Trained:
    """The network that scores."""
    return _train_reader(params, compute, runs)


def train_recogniser(params: pretraining.ReaderParams, compute: ComputeParams, runs: Path) -> Trained:
    """The network whose features the discriminator of stage two reads."""
    return _train_reader(params, compute, runs)


def train_autoencoder(
    architecture: ArchitectureParams, params: pretraining.AutoencoderParams, compute: ComputeParams, runs: Path
) -> Trained:
    """Pixels to latents and back.

    Args:
        architecture: Sizes of the teacher's networks.
        params: The settings, validated.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        What was trained, and the losses.
    """
    job = pretraining.AutoencoderJob(folder=runs, compute=compute, architecture=architecture, params=params)
    return _trained(launch(job), "autoencoder", "diffusers.AutoencoderKL")


def train_text_encoders(
    captions: pd.DataFrame,
    architecture: ArchitectureParams,
    params: pretraining.PretrainingParams,
    compute: ComputeParams,
    runs: Path,
) -> Trained:
    """Tokenizers, text encoders and scheduler as a pipeline that still lacks its transformer and autoencoder.

    Args:
        captions: A row per caption.
        architecture: Sizes of the teacher's networks.
        params: The settings, validated.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        What was trained, and the losses.
    """
    job = pretraining.TextEncodersJob(
        folder=runs,
        compute=compute,
        captions=store_frame(captions, runs / "captions.parquet"),
        architecture=architecture,
        params=params,
    )
    return _trained(launch(job), "text_components", "diffusers.StableDiffusion3Pipeline")


@torch.no_grad()
def encode_training_images(
    captions: pd.DataFrame, autoencoder: ModelFolder, params: TrainingImagesParams, runs: Path
) -> TensorTable:
    """Render scenes for training captions and keep their latents; the index holds the caption of each.

    Args:
        captions: A row per caption.
        autoencoder: The trained autoencoder.
        params: The settings, validated.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        A row per image.
    """
    train = captions[captions["split"] == "train"].reset_index(drop=True)
    draws = torch.Generator().manual_seed(params.seed)
    rows = torch.randint(len(train), (params.count,), generator=draws)
    latents, encoder = [], autoencoder.load()
    for batch in rows.split(params.batch_size):
        named = {name: torch.from_numpy(train[name].to_numpy(copy=True))[batch] for name in NAMED}
        images = render(named | sample_free_attributes(named, draws), draws)
        latents.append(encoder.encode(images * 2 - 1).latent_dist.mean)
    index = train.loc[rows.numpy(), ["id", "text"]].rename(columns={"id": "prompt_id"})
    return TensorTable.write(runs, index, {"latent": torch.cat(latents)})


def train_transformer(
    latents: TensorTable,
    text: ModelFolder,
    architecture: ArchitectureParams,
    params: pretraining.FlowParams,
    compute: ComputeParams,
    runs: Path,
) -> Trained:
    """The velocity network, on latents brought to zero mean and unit variance.

    Args:
        latents: Latents of training images, with their captions.
        text: Tokenizers, text encoders and scheduler.
        architecture: Sizes of the teacher's networks.
        params: The settings, validated.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        What was trained, and the losses.
    """
    job = pretraining.TransformerJob(
        folder=runs,
        compute=compute,
        latents=latents.handle,
        text_components=text,
        architecture=architecture,
        params=params,
    )
    return _trained(launch(job), "transformer", "diffusers.SD3Transformer2DModel")


def assemble_teacher(
    transformer: ModelFolder, autoencoder: ModelFolder, latents: TensorTable, text: ModelFolder
) -> StableDiffusion3Pipeline:
    """All components as one pipeline; the autoencoder learns the shift and scale of its latents.

    Args:
        transformer: The velocity network.
        autoencoder: The trained autoencoder.
        latents: Latents, a row per image.
        text: Tokenizers, text encoders and scheduler.

    Returns:
        The pipeline.
    """
    values, vae = latents.column("latent"), autoencoder.load()
    vae.register_to_config(shift_factor=float(values.mean()), scaling_factor=1 / float(values.std()))
    components = text.load(transformer=None, vae=None).components
    return StableDiffusion3Pipeline(**{**components, "transformer": transformer.load(), "vae": vae})


def accept_teacher(
    teacher: TeacherFolder,
    evaluator: ModelFolder,
    recogniser: ModelFolder,
    captions: pd.DataFrame,
    params: AcceptanceParams,
) -> tuple[dict[str, Any], Image.Image]:
    """Measure the evaluator on rendered images, and the teacher with and without guidance.

    Args:
        teacher: The teacher's folder.
        evaluator: The network that reads attributes for metrics.
        recogniser: The recogniser that judges images.
        captions: A row per caption.
        params: The settings, validated.

    Returns:
        The figures and a grid of images.
    """
    return measure_teacher(teacher.load(), evaluator.load(), recogniser.load(), captions, **params.model_dump())


def _train_reader(params: pretraining.ReaderParams, compute: ComputeParams, folder: Path) -> Trained:
    job = pretraining.ReaderJob(folder=folder, compute=compute, params=params)
    return _trained(launch(job), "reader", "onex_distill.shapes.networks.ShapesReader")


def _trained(result: Path, name: str, class_name: str) -> Trained:
    return ModelFolder(path=result / name, class_name=class_name), pd.read_parquet(result / "losses.parquet")
