"""Training the embedded teacher from nothing: readers, autoencoder, text encoders, rectified-flow transformer.

Every job resumes from its folder, and writes the finished network and its loss history.

Shapes: B batch, C latent channels, H W latent size; images are RGB in [0, 1], (B, 3, 32, 32).
"""

from typing import NamedTuple, Self, cast

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusion3Pipeline
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from onex_distill.engine.accumulation import Backward, accumulate, check_micro_batch
from onex_distill.engine.job import Job
from onex_distill.engine.loop import LoopParams, train
from onex_distill.engine.optimisation import OptimizerParams, Stepper, moving_average
from onex_distill.engine.randomness import generator, seeded
from onex_distill.engine.run import Run
from onex_distill.engine.weights import gather, place
from onex_distill.flow.conversions import add_noise, velocity_of
from onex_distill.flow.sigmas import shift_sigma
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.text import encode_prompts
from onex_distill.models.velocity import predict_velocity
from onex_distill.parameters import Params, Seed
from onex_distill.pretraining.architecture import (
    ArchitectureParams,
    build_autoencoder,
    build_scheduler,
    build_text_encoders,
    build_tokenizers,
    build_transformer,
)
from onex_distill.shapes.captions import named_attributes
from onex_distill.shapes.networks import ShapesReader
from onex_distill.shapes.render import render
from onex_distill.shapes.world import NAMED, VALUES, Attributes, sample_attributes
from onex_distill.storage.frame import FrameFile
from onex_distill.storage.model_folder import ModelFolder, save_model
from onex_distill.storage.tensor_table import TableFolder


class PretrainingParams(Params):
    """What every pre-training run needs; ``micro_batch_size`` rows of a rank are in memory at once (null: all)."""

    seed: Seed
    batch_size: PositiveInt
    micro_batch_size: PositiveInt | None
    loop: LoopParams
    optimizer: OptimizerParams

    def describe(self, step: int) -> str:
        """Where the data of a step come from, for messages."""
        return f"seed {self.seed}, whose data are drawn from the step's number"


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


class PretrainingJob(Job):
    """The base of the jobs below."""

    params: PretrainingParams

    @model_validator(mode="after")
    def _micro_batches_go_round(self) -> Self:
        check_micro_batch(self.params.batch_size, self.params.micro_batch_size, self.compute.ranks)
        return self

    def take_update(self, backward: Backward, stepper: Stepper) -> dict[str, float]:
        """Accumulate the gradients of all rows and step; this rank's part of every value."""
        params, ranks = self.params, stepper.ranks
        means = accumulate(backward, params.batch_size, params.micro_batch_size, ranks)
        return ranks.part(params.batch_size, means, {"grad_norm": stepper.apply()})


class ReaderJob(PretrainingJob):
    """A reader of all six attributes, on freshly rendered images with a little noise."""

    params: ReaderParams

    def run(self, run: Run) -> None:
        """Write ``reader`` and ``losses.parquet``."""
        params, ranks = self.params, run.ranks
        with seeded(params.seed):
            reader = ShapesReader(params.channels, params.feature_dim).to(ranks.device)
        stepper = Stepper(reader.named_parameters(), params.optimizer, params.loop.steps, ranks)

        def update(step: int) -> dict[str, float]:
            attributes, images = _rendered_batch(params, step)
            noise = torch.randn(images.shape, generator=generator(params.seed, step, "pixel noise"))
            strength = torch.rand(len(images), 1, 1, 1, generator=generator(params.seed, step, "noise strength"))
            share = ranks.share(params.batch_size)
            seen = (images + params.pixel_noise * strength * noise)[share].to(ranks.device)
            truth = {name: values[share].to(ranks.device) for name, values in attributes.items()}

            def backward(rows: slice, weight: float) -> dict[str, float]:
                logits, right = reader(seen[rows]), {name: values[rows] for name, values in truth.items()}
                loss = torch.stack([cross_entropy(logits[name], right[name]) for name in VALUES]).sum()
                (loss * weight).backward()
                all_right = torch.stack([logits[name].argmax(1) == right[name] for name in VALUES]).all(0)
                return {"loss": float(loss.detach()), "all_right": float(all_right.float().mean())}

            return self.take_update(backward, stepper)

        losses = train(update, {"reader": reader, "stepper": stepper}, params.loop, run, params.describe)
        if ranks.is_first:
            save_model(reader, run.result / "reader")
            losses.to_parquet(run.result / "losses.parquet")


class AutoencoderJob(PretrainingJob):
    """Squared error of pixels and of their differences (edges) on rendered images, and a small KL term."""

    architecture: ArchitectureParams
    params: AutoencoderParams

    def run(self, run: Run) -> None:
        """Write ``autoencoder`` and ``losses.parquet``."""
        params, ranks = self.params, run.ranks
        with seeded(params.seed):
            autoencoder = build_autoencoder(self.architecture).to(ranks.device).train()
        stepper = Stepper(autoencoder.named_parameters(), params.optimizer, params.loop.steps, ranks)

        def update(step: int) -> dict[str, float]:
            share = ranks.share(params.batch_size)
            images = (_rendered_batch(params, step)[1] * 2 - 1)[share].to(ranks.device)

            def backward(rows: slice, weight: float) -> dict[str, float]:
                target, draws = images[rows], generator(params.seed, step, "posterior")
                with torch.autocast(target.device.type, torch.bfloat16, enabled=params.bf16):
                    posterior = autoencoder.encode(target).latent_dist
                    noise = torch.randn((params.batch_size, *posterior.mean.shape[1:]), generator=draws)[share][rows]
                    output = autoencoder.decode(posterior.mean + posterior.std * noise.to(ranks.device)).sample.float()
                pixel, edge, kl = mse_loss(output, target), _edge_loss(output, target), posterior.kl().mean()
                loss = pixel + params.edge_weight * edge + params.kl_weight * kl
                (loss * weight).backward()
                parts = {"loss": loss, "pixel": pixel, "edge": edge, "kl": kl}
                return {name: float(value.detach()) for name, value in parts.items()}

            return self.take_update(backward, stepper)

        states = {"autoencoder": autoencoder, "stepper": stepper}
        losses = train(update, states, params.loop, run, params.describe)
        if ranks.is_first:
            save_model(autoencoder, run.result / "autoencoder")
            losses.to_parquet(run.result / "losses.parquet")


class CaptionReader(nn.Module):
    """Linear heads that read the named attributes from the outputs of the three text encoders."""

    def __init__(self, clip_dims: tuple[int, int], t5_dim: int) -> None:
        super().__init__()
        dims = (*clip_dims, t5_dim)
        self.heads = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(dim, len(VALUES[name])) for name in NAMED}) for dim in dims
        )

    def loss(self, pooled: list[Tensor], attributes: Attributes) -> Tensor:
        """Mean cross entropy over encoders and attributes; ``pooled`` holds one (B, D_i) tensor per encoder."""
        losses = [
            cross_entropy(head(embeds), attributes[name])
            for embeds, heads in zip(pooled, self.heads, strict=True)
            for name, head in cast(nn.ModuleDict, heads).items()
        ]
        return torch.stack(losses).mean()


class TextEncodersJob(PretrainingJob):
    """Teach the text encoders to expose the named attributes of training captions."""

    captions: FrameFile
    architecture: ArchitectureParams
    params: PretrainingParams

    def run(self, run: Run) -> None:
        """Write ``text_components``, a pipeline without transformer and autoencoder, and ``losses.parquet``."""
        params, ranks = self.params, run.ranks
        captions = self.captions.read()
        pipeline = _text_components(captions["text"], self.architecture, params.seed)
        texts = list(captions.loc[captions["split"] == "train", "text"])
        tokenizers = (pipeline.tokenizer, pipeline.tokenizer_2, pipeline.tokenizer_3)
        padding = {"padding": "max_length", "max_length": self.architecture.max_tokens, "truncation": True}
        token_ids = [torch.tensor(tokenizer(texts, **padding).input_ids) for tokenizer in tokenizers]
        attributes = named_attributes(texts)
        clips, t5 = [pipeline.text_encoder, pipeline.text_encoder_2], pipeline.text_encoder_3
        with seeded(params.seed):
            dims = clips[0].config.projection_dim, clips[1].config.projection_dim
            reader = CaptionReader(dims, t5.config.d_model)
        modules = nn.ModuleList([*clips, t5, reader]).to(ranks.device).train()
        stepper = Stepper(modules.named_parameters(), params.optimizer, params.loop.steps, ranks)

        def update(step: int) -> dict[str, float]:
            draws = generator(params.seed, step, "captions")
            drawn = torch.randint(len(texts), (params.batch_size,), generator=draws)[ranks.share(params.batch_size)]

            def backward(rows: slice, weight: float) -> dict[str, float]:
                ids = [encoded[drawn[rows]].to(ranks.device) for encoded in token_ids]
                pooled = [clip(part).text_embeds for clip, part in zip(clips, ids[:2], strict=True)]
                pooled.append(t5(ids[2]).last_hidden_state.mean(1))
                truth = {name: attributes[name][drawn[rows]].to(ranks.device) for name in NAMED}
                loss = reader.loss(pooled, truth)
                (loss * weight).backward()
                return {"loss": float(loss.detach())}

            return self.take_update(backward, stepper)

        losses = train(update, {"modules": modules, "stepper": stepper}, params.loop, run, params.describe)
        if ranks.is_first:
            modules.eval()
            save_model(pipeline, run.result / "text_components")
            losses.to_parquet(run.result / "losses.parquet")


class TransformerJob(PretrainingJob):
    """Rectified-flow matching with caption dropout, on latents brought to zero mean and unit variance.

    ``latents`` holds ``latent``; its index ``text``.
    """

    latents: TableFolder
    text_components: ModelFolder
    architecture: ArchitectureParams
    params: FlowParams

    def run(self, run: Run) -> None:
        """Write ``transformer`` (its averaged weights) and ``losses.parquet``."""
        params, ranks = self.params, run.ranks
        table = self.latents.open()
        values = table.column("latent")
        latents = (values - values.mean()) / values.std()
        texts, prompt_rows = np.unique(table.index["text"].to_numpy(dtype=str), return_inverse=True)
        text = self.text_components.load(transformer=None, vae=None)
        embeds, pooled = encode_prompts(text, [*texts.tolist(), ""], self.architecture.max_tokens)
        with seeded(params.seed):
            transformer = build_transformer(self.architecture)
        average = moving_average(transformer, params.ema_decay)
        place(average.module, ranks)
        place(transformer, ranks).train()
        stepper = Stepper(transformer.named_parameters(), params.optimizer, params.loop.steps, ranks)

        def update(step: int) -> dict[str, float]:
            draws = _draw_flow(params, step, latents.shape)
            share = ranks.share(params.batch_size)

            def backward(rows: slice, weight: float) -> dict[str, float]:
                drawn = FlowDraws(*(value[share][rows] for value in draws))
                prompts = torch.where(drawn.dropped, len(texts), torch.from_numpy(prompt_rows)[drawn.rows])
                x0, noise, sigma = (v.to(ranks.device) for v in (latents[drawn.rows].float(), drawn.noise, drawn.sigma))
                batch = PromptBatch(embeds[prompts], pooled[prompts]).to(ranks.device)
                with ranks.autocast():
                    velocity = predict_velocity(transformer, add_noise(x0, noise, sigma), sigma, batch)
                loss = mse_loss(velocity, velocity_of(x0, noise))
                (loss * weight).backward()
                return {"loss": float(loss.detach())}

            values = self.take_update(backward, stepper)
            average.update_parameters(transformer)
            return values

        states = {"transformer": transformer, "average": average, "stepper": stepper}
        losses = train(update, states, params.loop, run, params.describe)
        state = gather(average.module.state_dict(), ranks)
        if ranks.is_first:
            averaged = build_transformer(self.architecture)
            averaged.load_state_dict(state)
            save_model(averaged, run.result / "transformer")
            losses.to_parquet(run.result / "losses.parquet")


class FlowDraws(NamedTuple):
    """All random numbers of one step, for the whole batch."""

    rows: Tensor  # (B,)
    sigma: Tensor  # (B,)
    noise: Tensor  # (B, C, H, W)
    dropped: Tensor  # (B,) bool: the empty prompt takes the caption's place


def _draw_flow(params: FlowParams, step: int, shape: torch.Size) -> FlowDraws:
    draws = generator(params.seed, step, "flow")
    rows = torch.randint(shape[0], (params.batch_size,), generator=draws)
    u = torch.sigmoid(params.sigma_mean + params.sigma_std * torch.randn(params.batch_size, generator=draws))
    noise = torch.randn((params.batch_size, *shape[1:]), generator=draws)
    dropped = torch.rand(params.batch_size, generator=draws) < params.caption_dropout
    return FlowDraws(rows, shift_sigma(u, params.sigma_shift), noise, dropped)


def _text_components(texts: pd.Series, architecture: ArchitectureParams, seed: int) -> StableDiffusion3Pipeline:
    """Untrained tokenizers, text encoders and scheduler as a pipeline that lacks transformer and autoencoder."""
    tokenizers = build_tokenizers(sorted({word for text in texts for word in text.split()}), architecture.max_tokens)
    with seeded(seed):
        clip, clip_2, t5 = build_text_encoders(architecture, tokenizers[0], tokenizers[2])
    return StableDiffusion3Pipeline(
        transformer=None,
        vae=None,
        scheduler=build_scheduler(architecture),
        text_encoder=clip,
        text_encoder_2=clip_2,
        text_encoder_3=t5,
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        tokenizer_3=tokenizers[2],
    )


def _rendered_batch(params: PretrainingParams, step: int) -> tuple[Attributes, Tensor]:
    draws = generator(params.seed, step, "scenes")
    attributes = sample_attributes(params.batch_size, draws)
    return attributes, render(attributes, draws)


def _edge_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error between horizontal and vertical pixel differences."""
    return mse_loss(output.diff(dim=-1), target.diff(dim=-1)) + mse_loss(output.diff(dim=-2), target.diff(dim=-2))
