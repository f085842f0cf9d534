"""What the networks of a training keep in memory while they run, at their true shapes, from configurations alone.

Shapes: B rows at once; latents (B, C, H, W); images (B, 3, H*f, W*f).
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor, nn

from onex_distill.distill.planner.counting import Activations, count, without_contents
from onex_distill.models.lora import ATTENTION, FEED_FORWARD, LoraParams, add_lora
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.sampling import decode_latents
from onex_distill.models.velocity import predict_velocity
from onex_distill.storage.model_folder import ModelFolder

GROWING = ("dual_attention_layers", "num_layers")


class Sizes(NamedTuple):
    """Numbers of weights: of all, of the largest block, of what is outside the blocks, and of one set of adapters.

    ``buffers`` are bytes: the table of positions, which is whole on every rank.
    """

    whole: int
    block: int
    outside: int
    adapters: int
    buffers: int


class Setting(NamedTuple):
    """How a transformer runs: rows at once, tokens per prompt, and what decides what it keeps.

    ``weights`` is the type of its frozen weights, or of all without ``lora``.
    """

    rows: int
    tokens: int
    bf16: bool
    weights: torch.dtype
    checkpointing: bool
    lora: LoraParams | None
    backward: bool = True


@lru_cache(maxsize=16)
def transformer_sizes(folder: ModelFolder, lora: LoraParams) -> Sizes:
    """Numbers of a transformer's weights; an adapter has ``rank`` weights for every input and output of a layer."""
    transformer: SD3Transformer2DModel = folder.build()
    blocks = [weights(block) for block in transformer.transformer_blocks]
    layers = [
        part
        for name, part in transformer.named_modules()
        if any(name == target or name.endswith(f".{target}") for target in (*ATTENTION, *FEED_FORWARD))
    ]
    adapters = lora.rank * sum(layer.in_features + layer.out_features for layer in layers)
    whole = weights(transformer)
    buffers = sum(buffer.nbytes for buffer in transformer.buffers())
    return Sizes(whole, max(blocks), whole - sum(blocks), adapters, buffers)


def weights(module: nn.Module) -> int:
    """How many weights a module has."""
    return sum(parameter.numel() for parameter in module.parameters())


def transformer_activations(folder: ModelFolder, setting: Setting) -> Activations:
    """Activations of one forward and backward of a transformer.

    Blocks of a kind need the same: one more of each kind is counted, and taken as often as there are.
    """
    config: dict[str, Any] = SD3Transformer2DModel.load_config(folder.path)
    layers, dual = config["num_layers"], len(config.get("dual_attention_layers") or ())
    if layers < 4:
        return _count_transformer(folder.path, layers, dual, setting)
    first = 1 if dual else 0
    base = _count_transformer(folder.path, first + 2, first, setting)
    plain = _count_transformer(folder.path, first + 3, first, setting) - base
    more = _count_transformer(folder.path, first + 3, first + 1, setting) - base if dual else plain
    return base + plain.times(layers - 2 - max(dual, first)) + more.times(max(dual - first, 0))


@lru_cache(maxsize=256)
def _count_transformer(folder: Path, layers: int, dual: int, setting: Setting) -> Activations:
    config = dict(SD3Transformer2DModel.load_config(folder))
    config |= {"num_layers": layers, "dual_attention_layers": tuple(range(dual))}
    with torch.device("meta"):
        transformer = SD3Transformer2DModel.from_config(config)
        nn.Module.to(transformer, setting.weights).train()
        if setting.lora is not None:
            add_lora(transformer, setting.lora)
    if setting.checkpointing:
        transformer.enable_gradient_checkpointing()
    with without_contents(transformer):
        latents = torch.empty((setting.rows, config["in_channels"], config["sample_size"], config["sample_size"]))
        embeds = torch.empty((setting.rows, setting.tokens, config["joint_attention_dim"]))
        prompts = PromptBatch(embeds, torch.empty((setting.rows, config["pooled_projection_dim"])))

        def forward() -> Tensor:
            return predict_velocity(transformer, latents, 1.0, prompts)

        return count(transformer, (latents, embeds, prompts.pooled), forward, setting.bf16, setting.backward)


@lru_cache(maxsize=64)
def decoder_activations(
    folder: ModelFolder, latents: tuple[int, int, int, int], dtype: torch.dtype, checkpointing: bool
) -> Activations:
    """Activations of decoding latents of a shape by weights of a type, with a gradient to the latents.

    Args:
        folder: The autoencoder.
        latents: Their shape (N, C, H, W).
        dtype: The type of the weights.
        checkpointing: Recompute activations in the backward pass.

    Returns:
        Bytes of activations.
    """
    autoencoder: AutoencoderKL = folder.build().requires_grad_(False).eval()
    nn.Module.to(autoencoder, dtype)
    if checkpointing:
        autoencoder.enable_gradient_checkpointing()
    with without_contents(autoencoder):
        x0 = torch.empty(latents, requires_grad=True)
        return count(autoencoder, (x0,), lambda: decode_latents(autoencoder, x0), bf16=False)
