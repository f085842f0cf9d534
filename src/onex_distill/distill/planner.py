"""What a training will need, before it starts: memory of a rank, disk of the run.

Weights, gradients and optimizer state follow from the number of parameters. Activations are counted: the network runs
once on the meta device, which computes nothing, and every tensor that autograd would keep is added up.
"""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from onex_distill.cache.compensation import Compensation
from onex_distill.distill.cotraining.params import CotrainingParams
from onex_distill.distill.stage_one.params import StageOneParams
from onex_distill.distill.stage_two.backbones import backbone_parameters
from onex_distill.distill.stage_two.params import AdversarialParams
from onex_distill.engine.checkpoint import KEPT
from onex_distill.engine.compute import ComputeParams
from onex_distill.models.lora import add_lora
from onex_distill.models.noise import latent_shape
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.teacher import TeacherFolder
from onex_distill.models.velocity import predict_velocity

FLOAT = 4  # bytes of a float32
MOMENTS = 2 * FLOAT  # bytes of AdamW's state a parameter


class Need(NamedTuple):
    """Bytes that one rank needs on its device, and that the run needs on disk."""

    memory: int
    disk: int


def stage_one_need(teacher: TeacherFolder, tokens: int, params: StageOneParams, compute: ComputeParams) -> Need:
    """The state of the roles, one gradient at a time; AdamW for two; two graphs; the autoencoder that decodes the grid.

    On disk the best students that checkpoints name, and twice the last and the best: in the run and as datasets.
    """
    transformer = teacher.transformer.build()
    fixed = _count(teacher.autoencoder.build().parameters()) * FLOAT
    rows = -(-params.batch_size // compute.ranks)
    activations = 2 * transformer_activations(transformer, rows, tokens, compute)
    count = _count(transformer.parameters())
    if params.parametrization == "full":
        weights, trained, kept = (4 if params.ema_decay else 3) * count, count, (3 if params.ema_decay else 2) * count
    else:
        adapted = add_lora(transformer, params.lora)
        trained = _count(p for p in adapted.parameters() if p.requires_grad)
        weights, kept = count + 3 * trained, 3 * trained
    state = (weights + trained) * FLOAT + 2 * trained * MOMENTS
    checkpoint = kept * FLOAT + 2 * trained * MOMENTS
    disk = (KEPT + 1) * (checkpoint + count * FLOAT) + 4 * count * FLOAT
    return Need(_shard(state, compute) + fixed + activations, disk)


def stage_two_need(teacher: TeacherFolder, tokens: int, params: AdversarialParams, compute: ComputeParams) -> Need:
    """A frozen base, adapters with gradient and AdamW, the frozen autoencoder and the discriminator's backbone, the
    graphs of a step and of decoding.

    References made online need their generator too, a co-training its compensation.
    """
    transformer, autoencoder = teacher.transformer.build(), teacher.autoencoder.build()
    count = _count(transformer.parameters())
    fixed = _count(autoencoder.parameters()) + backbone_parameters(params.backbone)
    shape, cache = latent_shape(transformer), _cache_need(transformer, tokens, params, compute)
    adapted = add_lora(transformer, params.lora)
    trained = _count(p for p in adapted.parameters() if p.requires_grad)
    rows = -(-params.batch_size // compute.ranks)
    latents = torch.empty((rows, *shape), device="meta", requires_grad=True)
    decoding = saved_bytes(autoencoder.requires_grad_(False), lambda: autoencoder.decode(latents).sample)
    activations = transformer_activations(transformer, rows, tokens, compute) + decoding
    frozen = count * (2 if params.references == "online" else 1)
    state = _shard((frozen + trained) * FLOAT + trained * (FLOAT + MOMENTS), compute) + fixed * FLOAT
    disk = (KEPT + 1) * trained * (FLOAT + MOMENTS) + 2 * count * FLOAT + cache.disk
    return Need(state + activations + cache.memory, disk)


def _cache_need(
    transformer: SD3Transformer2DModel, tokens: int, params: AdversarialParams, compute: ComputeParams
) -> Need:
    """The compensation with gradient and AdamW, whole on every rank, and the residuals that a step stores."""
    if not isinstance(params, CotrainingParams):
        return Need(0, 0)
    width, (_, height, breadth) = transformer.inner_dim, latent_shape(transformer)
    with torch.device("meta"):
        compensation = Compensation(width, params.candidates, **params.compensation_function.model_dump())
    trained = _count(compensation.parameters())
    rows = -(-params.batch_size // compute.ranks)
    both_streams = tokens + height * breadth // transformer.config.patch_size**2
    residuals = max(map(len, params.candidates)) * rows * both_streams * width * _element(compute)
    state = trained * (FLOAT + MOMENTS)
    return Need(state + trained * FLOAT + residuals, (KEPT + 1) * state + trained * FLOAT)


def transformer_activations(transformer: SD3Transformer2DModel, rows: int, tokens: int, compute: ComputeParams) -> int:
    """Bytes that the backward of one forward of ``rows`` samples keeps."""
    config = transformer.config
    prompts = PromptBatch(
        torch.empty((rows, tokens, config.joint_attention_dim), device="meta"),
        torch.empty((rows, config.pooled_projection_dim), device="meta"),
    )
    noise = torch.empty((rows, *latent_shape(transformer)), device="meta")
    whole = saved_bytes(transformer, lambda: predict_velocity(transformer, noise, 1.0, prompts))
    return whole * _element(compute) // FLOAT


def saved_bytes(module: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes of the tensors that autograd keeps for the backward, each storage once, parameters left out."""
    own = {p.untyped_storage()._cdata for p in module.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            kept[storage] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def available_memory(compute: ComputeParams) -> int:
    """Bytes that one rank may use: its accelerator's, or its share of the machine's free memory."""
    if compute.device == "auto" and torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return int(psutil.virtual_memory().available) // compute.processes


def available_disk(folder: Path) -> int:
    """Free bytes where a folder is, or will be made."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_fit(name: str, need: Need, memory: int, disk: int, compute: ComputeParams) -> None:
    """Raise ValueError when a run cannot fit, with what to change."""
    if need.memory > memory:
        raise ValueError(
            f"{name} needs {gib(need.memory):.1f} GiB of memory a rank and {gib(memory):.1f} are there; lower its "
            f"batch_size, or set compute.sharding to fsdp2 over more than {compute.ranks} processes"
        )
    if need.disk > disk:
        raise ValueError(
            f"the runs need {gib(need.disk):.1f} GiB of disk up to {name} and {gib(disk):.1f} are free; free space, or "
            "move the data with --params=data=FOLDER"
        )


def gib(size: int) -> float:
    """Bytes as GiB."""
    return size / 2**30


def _element(compute: ComputeParams) -> int:
    """Bytes of a number in an activation."""
    return FLOAT // 2 if compute.mixed_precision == "bf16" else FLOAT


def _shard(size: int, compute: ComputeParams) -> int:
    return size // compute.ranks if compute.sharding == "fsdp2" else size


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(p.numel() for p in parameters)
