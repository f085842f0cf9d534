"""Nodes of the teacher pipeline."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from PIL import Image

from onex_distill.engine import pretraining
from onex_distill.metrics.acceptance import measure_teacher
from onex_distill.models import tiny
from onex_distill.models.text import encode_prompts
from onex_distill.pipelines.teacher.params import AcceptanceParams, TrainingImagesParams
from onex_distill.shapes.captions import all_captions, named_attributes
from onex_distill.shapes.networks import ShapesReader
from onex_distill.shapes.render import render
from onex_distill.shapes.world import NAMED, sample_free_attributes
from onex_distill.storage.tensor_table import TensorTable


def build_captions() -> pd.DataFrame:
    """Every caption of ShapesWorld with its split and attributes."""
    return all_captions()


def train_evaluator(params: pretraining.ReaderParams, runs: Path) -> tuple[ShapesReader, pd.DataFrame]:
    """The network that scores."""
    return pretraining.train_reader(params, runs / "train_evaluator")


def train_recogniser(params: pretraining.ReaderParams, runs: Path) -> tuple[ShapesReader, pd.DataFrame]:
    """The network whose features the discriminator of stage two reads."""
    return pretraining.train_reader(params, runs / "train_recogniser")


def train_autoencoder(
    architecture: tiny.ArchitectureParams, params: pretraining.AutoencoderParams, runs: Path
) -> tuple[AutoencoderKL, pd.DataFrame]:
    """Pixels to latents and back."""
    with tiny.seeded(params.seed):
        autoencoder = tiny.build_autoencoder(architecture)
    return pretraining.train_autoencoder(autoencoder, params, runs / "train_autoencoder")


def train_text_encoders(
    captions: pd.DataFrame, architecture: tiny.ArchitectureParams, params: pretraining.PretrainingParams, runs: Path
) -> tuple[StableDiffusion3Pipeline, pd.DataFrame]:
    """Tokenizers, text encoders and scheduler as a pipeline that still lacks its transformer and autoencoder."""
    words = sorted({word for text in captions["text"] for word in text.split()})
    tokenizers = tiny.build_tokenizers(words, architecture.max_tokens)
    with tiny.seeded(params.seed):
        clip, clip_2, t5 = tiny.build_text_encoders(architecture, tokenizers[0], tokenizers[2])
    texts = list(captions.loc[captions["split"] == "train", "text"])
    padding = {"padding": "max_length", "max_length": architecture.max_tokens, "truncation": True}
    token_ids = [torch.tensor(tokenizer(texts, **padding).input_ids) for tokenizer in tokenizers]
    history = pretraining.train_text_encoders(
        [clip, clip_2], t5, token_ids, named_attributes(texts), params, runs / "train_text_encoders"
    )
    pipeline = StableDiffusion3Pipeline(
        transformer=None,
        vae=None,
        scheduler=tiny.build_scheduler(architecture),
        text_encoder=clip,
        text_encoder_2=clip_2,
        text_encoder_3=t5,
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        tokenizer_3=tokenizers[2],
    )
    return pipeline, history


@torch.no_grad()
def encode_training_images(
    captions: pd.DataFrame, autoencoder: AutoencoderKL, params: TrainingImagesParams
) -> TensorTable:
    """Render scenes for training captions and keep their latents; the index holds the caption of each."""
    train = captions[captions["split"] == "train"].reset_index(drop=True)
    draws = torch.Generator().manual_seed(params.seed)
    rows = torch.randint(len(train), (params.count,), generator=draws)
    latents = []
    for batch in rows.split(params.batch_size):
        named = {name: torch.from_numpy(train[name].to_numpy())[batch] for name in NAMED}
        images = render(named | sample_free_attributes(named, draws), draws)
        latents.append(autoencoder.encode(images * 2 - 1).latent_dist.mean)
    index = train.loc[rows.numpy(), ["id", "text"]].rename(columns={"id": "prompt_id"})
    return TensorTable(index, {"latent": torch.cat(latents)})


def train_transformer(
    captions: pd.DataFrame,
    latents: TensorTable,
    text: StableDiffusion3Pipeline,
    architecture: tiny.ArchitectureParams,
    params: pretraining.FlowParams,
    runs: Path,
) -> tuple[SD3Transformer2DModel, pd.DataFrame]:
    """The velocity network, on latents brought to zero mean and unit variance."""
    train = captions[captions["split"] == "train"].reset_index(drop=True)
    prompt_rows = train.reset_index().set_index("id")["index"].loc[latents.index["prompt_id"]]
    embeds, pooled = encode_prompts(text, [*train["text"], ""], architecture.max_tokens)
    values = latents.column("latent")
    with tiny.seeded(params.seed):
        transformer = tiny.build_transformer(architecture)
    return pretraining.train_transformer(
        transformer,
        (values - values.mean()) / values.std(),
        torch.from_numpy(prompt_rows.to_numpy()),
        embeds,
        pooled,
        params,
        runs / "train_transformer",
    )


def assemble_teacher(
    transformer: SD3Transformer2DModel,
    autoencoder: AutoencoderKL,
    latents: TensorTable,
    text: StableDiffusion3Pipeline,
) -> StableDiffusion3Pipeline:
    """All components as one pipeline; the autoencoder learns the shift and scale of its latents."""
    values = latents.column("latent")
    autoencoder.register_to_config(shift_factor=float(values.mean()), scaling_factor=1 / float(values.std()))
    return StableDiffusion3Pipeline(**{**text.components, "transformer": transformer, "vae": autoencoder})


def accept_teacher(
    teacher: StableDiffusion3Pipeline,
    evaluator: ShapesReader,
    recogniser: ShapesReader,
    captions: pd.DataFrame,
    params: AcceptanceParams,
) -> tuple[dict[str, Any], Image.Image]:
    """Measure the evaluator on rendered images, and the teacher with and without guidance."""
    return measure_teacher(teacher, evaluator, recogniser, captions, **params.model_dump())
