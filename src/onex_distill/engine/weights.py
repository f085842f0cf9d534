"""Weights on their way between folders and ranks: loading, sharding, gathering, saving.

A model is read from memory-mapped safetensors, which all ranks of a machine share, and copied block by block to where
it trains; no rank ever holds a private copy of a sharded model.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from onex_distill.engine.ranks import Ranks, whole
from onex_distill.engine.speed import compile_blocks
from onex_distill.storage.model_folder import ModelFolder, save_model


def load_transformer(folder: ModelFolder) -> SD3Transformer2DModel:
    """The transformer as it is stored, so that its memory-mapped pages stay shared until ``place`` copies them."""
    return folder.load_as_stored()


def place(
    transformer: SD3Transformer2DModel, ranks: Ranks, frozen_dtype: torch.dtype = torch.float32
) -> SD3Transformer2DModel:
    """Bring a transformer's weights to this rank's device, whole or sharded block by block; compile it if asked for.

    They become float32; those that are frozen by now, ``frozen_dtype``. In mixed precision sharded weights are gathered
    in bf16, and so freed with the block that has run; their gradients are summed over ranks in float32. Inputs are left
    as they come, because the timestep is exact in float32 alone; autocast casts where a layer wants it.
    """
    policy, offload = _precision(ranks), _offload(ranks)
    for part in (*transformer.transformer_blocks, transformer):
        if frozen_dtype == torch.float32:
            part.float()
        for parameter in part.parameters():
            parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else frozen_dtype)
        if ranks.is_sharded:
            fully_shard(part, mesh=ranks.mesh, mp_policy=policy, offload_policy=offload)
    if ranks.compute.compile == "blocks":
        compile_blocks(transformer)
    return transformer if ranks.is_sharded else transformer.to(ranks.device)


def frozen_dtype(ranks: Ranks) -> torch.dtype:
    """The type to store frozen weights in: under bf16 autocast bf16, to which every forward would cast them."""
    return torch.bfloat16 if ranks.compute.mixed_precision == "bf16" else torch.float32


def reshard(transformer: SD3Transformer2DModel) -> None:
    """Free the outermost weights that a sharded transformer keeps whole after a forward without backward."""
    if isinstance(transformer, FSDPModule):
        transformer.reshard()


def gather(sharded: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """A state dict with whole tensors on the CPU of rank 0; empty on the others. Every rank calls this."""
    state: dict[str, Tensor] = {}
    for name, tensor in sharded.items():
        full = whole(tensor)
        if ranks.is_first:
            state[name] = full.cpu()
    return state


def save_transformer(state: dict[str, Tensor], like: ModelFolder, folder: Path) -> None:
    """Write gathered weights with the architecture of another folder."""
    model: SD3Transformer2DModel = like.build()
    model.load_state_dict(state, assign=True)
    model.register_to_config(_name_or_path="")
    save_model(model, folder)


def _precision(ranks: Ranks) -> MixedPrecisionPolicy:
    half = torch.bfloat16 if ranks.compute.mixed_precision == "bf16" else None
    return MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)


def _offload(ranks: Ranks) -> OffloadPolicy:
    return CPUOffloadPolicy() if ranks.compute.cpu_offload else OffloadPolicy()
