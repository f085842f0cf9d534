"""Training the embedded teacher from nothing: readers, autoencoder, text encoders, rectified-flow transformer.

Every function resumes from its run directory, and returns the finished network and its loss history.

Shapes: B batch, C latent channels, H W latent size; images are RGB in [0, 1], (B, 3, 32, 32).
"""

from pathlib import Path
from typing import cast

import pandas as pd
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from transformers import CLIPTextModelWithProjection, T5EncoderModel

from onex_distill.engine.checkpoint import fingerprint_of
from onex_distill.engine.loop import LoopParams, train
from onex_distill.engine.optimisation import OptimizerParams, Stepper, moving_average
from onex_distill.engine.randomness import generator
from onex_distill.flow.conversions import add_noise, velocity_of
from onex_distill.flow.sigmas import shift_sigma
from onex_distill.parameters import Params
from onex_distill.shapes.networks import ShapesReader
from onex_distill.shapes.render import render
from onex_distill.shapes.world import NAMED, VALUES, Attributes, sample_attributes


class PretrainingParams(Params):
    """What every pre-training run needs."""

    seed: int
    batch_size: PositiveInt
    loop: LoopParams
    optimizer: OptimizerParams


class ReaderParams(PretrainingParams):
    """A convolutional reader: its widths, and the pixel noise and blur that make it robust to generated images."""

    channels: tuple[PositiveInt, ...]
    feature_dim: PositiveInt
    pixel_noise: NonNegativeFloat


class AutoencoderParams(PretrainingParams):
    """Weights of the autoencoder's losses beside the squared error, and whether it trains in bf16 autocast."""

    kl_weight: NonNegativeFloat
    edge_weight: NonNegativeFloat
    bf16: bool


class FlowParams(PretrainingParams):
    """Rectified-flow training of the transformer; sigma is logit-normal in u, then shifted."""

    caption_dropout: float = Field(ge=0, le=1)
    sigma_mean: float
    sigma_std: PositiveFloat
    sigma_shift: PositiveFloat
    ema_decay: float = Field(ge=0, lt=1)


def train_reader(params: ReaderParams, run_dir: Path) -> tuple[ShapesReader, pd.DataFrame]:
    """Train a reader of all six attributes on freshly rendered images with a little noise and blur."""
    torch.manual_seed(params.seed)
    reader = ShapesReader(params.channels, params.feature_dim)
    stepper = Stepper(reader.parameters(), params.optimizer, params.loop.steps)

    def update(step: int) -> dict[str, float]:
        attributes, images = _rendered_batch(params.seed, step, params.batch_size)
        noise = torch.randn(images.shape, generator=generator(params.seed, step, "pixel noise"))
        strength = torch.rand(len(images), 1, 1, 1, generator=generator(params.seed, step, "noise strength"))
        logits = reader(images + params.pixel_noise * strength * noise)
        loss = sum((cross_entropy(logits[name], attributes[name]) for name in VALUES), torch.zeros(()))
        right = torch.stack([logits[name].argmax(1) == attributes[name] for name in VALUES]).all(0)
        return {"loss": float(loss.detach()), "grad_norm": stepper.step(loss), "all_right": float(right.float().mean())}

    history = train(update, {"reader": reader, "stepper": stepper}, params.loop, run_dir, fingerprint_of(params))
    return reader.eval(), history


def train_autoencoder(
    autoencoder: AutoencoderKL, params: AutoencoderParams, run_dir: Path
) -> tuple[AutoencoderKL, pd.DataFrame]:
    """Train on rendered images: squared error of pixels and of their differences (edges), and a small KL term."""
    stepper = Stepper(autoencoder.parameters(), params.optimizer, params.loop.steps)
    autoencoder.train()

    def update(step: int) -> dict[str, float]:
        _, images = _rendered_batch(params.seed, step, params.batch_size)
        target = images * 2 - 1
        with torch.autocast(target.device.type, torch.bfloat16, enabled=params.bf16):
            posterior = autoencoder.encode(target).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator(params.seed, step, "posterior"))
            output = autoencoder.decode(posterior.mean + posterior.std * noise).sample.float()
        pixel, edge, kl = mse_loss(output, target), _edge_loss(output, target), posterior.kl().mean()
        loss = pixel + params.edge_weight * edge + params.kl_weight * kl
        return {
            "loss": float(loss.detach()),
            "grad_norm": stepper.step(loss),
            "pixel": float(pixel.detach()),
            "edge": float(edge.detach()),
            "kl": float(kl.detach()),
        }

    states = {"autoencoder": autoencoder, "stepper": stepper}
    history = train(update, states, params.loop, run_dir, fingerprint_of(params))
    return autoencoder.eval(), history


class CaptionReader(nn.Module):
    """Linear heads that read the named attributes from the outputs of the three text encoders."""

    def __init__(self, clip_dims: tuple[int, int], t5_dim: int) -> None:
        super().__init__()
        dims = (*clip_dims, t5_dim)
        self.heads = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(dim, len(VALUES[name])) for name in NAMED}) for dim in dims
        )

    def loss(self, pooled: list[Tensor], attributes: Attributes) -> Tensor:
        """Mean cross entropy over encoders and attributes; ``pooled`` holds one (B, D_i) tensor an encoder."""
        losses = [
            cross_entropy(head(embeds), attributes[name])
            for embeds, heads in zip(pooled, self.heads, strict=True)
            for name, head in cast(nn.ModuleDict, heads).items()
        ]
        return torch.stack(losses).mean()


def train_text_encoders(
    clips: list[CLIPTextModelWithProjection],
    t5: T5EncoderModel,
    token_ids: list[Tensor],
    attributes: Attributes,
    params: PretrainingParams,
    run_dir: Path,
) -> pd.DataFrame:
    """Teach the encoders to expose the named attributes of training captions; ``token_ids`` holds one (N, L) each."""
    torch.manual_seed(params.seed)
    reader = CaptionReader((clips[0].config.projection_dim, clips[1].config.projection_dim), t5.config.d_model)
    modules = nn.ModuleList([*clips, t5, reader])
    stepper = Stepper(modules.parameters(), params.optimizer, params.loop.steps)

    def update(step: int) -> dict[str, float]:
        count = len(token_ids[0])
        rows = torch.randint(count, (params.batch_size,), generator=generator(params.seed, step, "captions"))
        pooled = [clip(ids[rows]).text_embeds for clip, ids in zip(clips, token_ids[:2], strict=True)]
        pooled.append(t5(token_ids[2][rows]).last_hidden_state.mean(1))
        loss = reader.loss(pooled, {name: attributes[name][rows] for name in NAMED})
        return {"loss": float(loss.detach()), "grad_norm": stepper.step(loss)}

    history = train(update, {"modules": modules, "stepper": stepper}, params.loop, run_dir, fingerprint_of(params))
    modules.eval()
    return history


def train_transformer(
    transformer: SD3Transformer2DModel,
    latents: Tensor,
    prompt_rows: Tensor,
    prompt_embeds: Tensor,
    pooled_prompt_embeds: Tensor,
    params: FlowParams,
    run_dir: Path,
) -> tuple[SD3Transformer2DModel, pd.DataFrame]:
    """Rectified-flow matching with caption dropout; returns the averaged (EMA) weights.

    ``latents`` (N, C, H, W) are scaled; ``prompt_rows`` (N,) points into the embeddings, whose last row is the empty
    prompt that dropout puts in place of the caption.
    """
    stepper = Stepper(transformer.parameters(), params.optimizer, params.loop.steps)
    average = moving_average(transformer, params.ema_decay)
    empty = len(prompt_embeds) - 1
    transformer.train()

    def update(step: int) -> dict[str, float]:
        draws = generator(params.seed, step, "flow")
        rows = torch.randint(len(latents), (params.batch_size,), generator=draws)
        x0 = latents[rows].float()
        u = torch.sigmoid(params.sigma_mean + params.sigma_std * torch.randn(len(x0), generator=draws))
        sigma = shift_sigma(u, params.sigma_shift)
        noise = torch.randn(x0.shape, generator=draws)
        dropped = torch.rand(len(x0), generator=draws) < params.caption_dropout
        prompts = torch.where(dropped, empty, prompt_rows[rows])
        velocity = transformer(
            hidden_states=add_noise(x0, noise, sigma),
            timestep=1000 * sigma,
            encoder_hidden_states=prompt_embeds[prompts],
            pooled_projections=pooled_prompt_embeds[prompts],
            return_dict=False,
        )[0]
        loss = mse_loss(velocity, velocity_of(x0, noise))
        norm = stepper.step(loss)
        average.update_parameters(transformer)
        return {"loss": float(loss.detach()), "grad_norm": norm}

    states = {"transformer": transformer, "average": average, "stepper": stepper}
    history = train(update, states, params.loop, run_dir, fingerprint_of(params))
    averaged: SD3Transformer2DModel = average.module
    return averaged.eval(), history


def _rendered_batch(seed: int, step: int, batch_size: int) -> tuple[Attributes, Tensor]:
    draws = generator(seed, step, "scenes")
    attributes = sample_attributes(batch_size, draws)
    return attributes, render(attributes, draws)


def _edge_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error between horizontal and vertical pixel differences."""
    return mse_loss(output.diff(dim=-1), target.diff(dim=-1)) + mse_loss(output.diff(dim=-2), target.diff(dim=-2))
