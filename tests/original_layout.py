"""Weights of diffusers' Stable Diffusion 3 under the names of the original checkpoints, for tests of single files."""

import re

import torch
from torch import Tensor

OUTSIDE = {  # names of the transformer outside its blocks
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}
INSIDE = {  # and in a block, after what is joined
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
JOINED = {"x_block": "attn.to_{}", "context_block": "attn.add_{}_proj"}


def original_transformer(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A transformer without dual attention; the last block's context norm and the final one swap shift and scale."""
    blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("transformer_blocks."))
    made = {}
    for name, value in state.items():
        for ours, theirs in OUTSIDE.items():
            if name == ours or name.rpartition(".")[0] == ours:
                made[name.replace(ours, theirs)] = _swapped(value) if ours == "norm_out.linear" else value
    for block in range(blocks):
        prefix, target = f"transformer_blocks.{block}.", f"joint_blocks.{block}."
        for stream, pattern in JOINED.items():
            for kind in ("weight", "bias"):
                parts = [state[f"{prefix}{pattern.format(part)}.{kind}"] for part in "qkv"]
                made[f"{target}{stream}.attn.qkv.{kind}"] = torch.cat(parts)
        for ours, theirs in INSIDE.items():
            for kind in ("weight", "bias"):
                if (name := f"{prefix}{ours}.{kind}") in state:
                    swap = block == blocks - 1 and ours == "norm1_context.linear"
                    made[f"{target}{theirs}.{kind}"] = _swapped(state[name]) if swap else state[name]
    return made


def original_vae(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An autoencoder of four levels."""
    return {_original_name(name): _as_convolution(name, value) for name, value in state.items()}


def _original_name(name: str) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda match: f"up.{3 - int(match[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda match: f"up.{3 - int(match[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
    return re.sub(r"to_([qkv])\.", r"\1.", name).replace("to_out.0", "proj_out")


def _as_convolution(name: str, value: Tensor) -> Tensor:
    return value[:, :, None, None] if "attentions" in name and value.ndim == 2 else value


def _swapped(value: Tensor) -> Tensor:
    first, second = value.chunk(2)
    return torch.cat([second, first])
