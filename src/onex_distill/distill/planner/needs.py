"""What a training will need, before it starts: memory per rank, disk of the run.

Weights, gradients and optimizer state follow from the number of weights; what the networks keep while they run is
counted (``counting``). A training is a sequence of phases, and needs what the largest of them does.
"""

from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel

from onex_distill.cache.compensation import Compensation
from onex_distill.distill.cotraining.params import CotrainingParams
from onex_distill.distill.planner.counting import Activations
from onex_distill.distill.planner.judging import judging
from onex_distill.distill.planner.networks import (
    Setting,
    Sizes,
    decoder_activations,
    transformer_activations,
    transformer_sizes,
    weights,
)
from onex_distill.distill.stage_one.params import StageOneParams
from onex_distill.distill.stage_two.params import AdversarialParams
from onex_distill.engine.checkpoint import KEPT
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.optimisation import OptimizerParams
from onex_distill.models.lora import LoraParams
from onex_distill.models.noise import latent_shape
from onex_distill.models.sampling import DTYPES
from onex_distill.models.teacher import TeacherFolder
from onex_distill.storage.model_folder import ModelFolder

FLOAT, HALF = 4, 2  # bytes of a number
MOMENTS = {
    "adamw": 2 * FLOAT,
    "adamw_8bit": 2 * (1 + FLOAT / 256),
}  # bytes per weight; one scale for every 256 in 8 bit


class Need(NamedTuple):
    """Bytes that one rank needs on its device, and that the run needs on disk."""

    memory: int
    disk: int


class Seeing(NamedTuple):
    """Bytes of whatever turns latents into images and judges them: its state, and the most in either kind of update."""

    state: int
    generating: int
    discriminating: int


NOTHING_SEEN = Seeing(0, 0, 0)
NO_ADAPTERS = LoraParams(rank=1, alpha=1)


def stage_one_need(teacher: TeacherFolder, tokens: int, params: StageOneParams, compute: ComputeParams) -> Need:
    """Three copies of the transformer, or one with two sets of adapters; the graphs of student and fake score.

    On disk the best students that checkpoints name, and twice the last and the best: in the run and as datasets.

    Args:
        teacher: The teacher's folder.
        tokens: Text tokens per caption.
        params: The settings, validated.
        compute: Ranks, precision and sharding.

    Returns:
        Bytes of memory per rank and of disk.
    """
    sizes = transformer_sizes(teacher.transformer, params.lora)
    if params.parametrization == "full":
        copies = 4 if params.ema_decay else 3
        state, trained, kept = copies * sizes.whole * FLOAT, sizes.whole, (copies - 1) * sizes.whole
    else:
        copies, trained, kept = 1, sizes.adapters, 3 * sizes.adapters
        state = sizes.whole * _frozen(compute) + kept * FLOAT
    moments = trained * (MOMENTS[params.student.kind] + MOMENTS[params.fake_score.kind])
    state += int(moments)
    disk = (KEPT + 1) * int(kept * FLOAT + moments + sizes.whole * FLOAT) + 4 * sizes.whole * FLOAT
    fixed = weights(teacher.autoencoder.build()) * FLOAT
    activations = _stage_one_activations(teacher, tokens, params, compute, trained)
    return Need(_placed(state, sizes, copies, trained, compute) + fixed + activations, disk)


def _stage_one_activations(
    teacher: TeacherFolder, tokens: int, params: StageOneParams, compute: ComputeParams, trained: int
) -> int:
    """Fake score and student learn in turn, and teacher and fake score are asked while the student's graph waits.

    It waits for the fake score too, unless the batch goes in parts: then a part's graph is made again.
    """
    rows, in_parts = _rows_at_once(params, compute)
    lora = None if params.parametrization == "full" else params.lora
    running = _running(lora is not None, compute)
    setting = Setting(rows, tokens, _bf16(compute), running, params.gradient_checkpointing, lora)
    student = transformer_activations(teacher.transformer, setting)
    guided = transformer_activations(teacher.transformer, setting._replace(rows=2 * rows, backward=False))
    waiting = (0 if in_parts else student.kept) + (student.kept if params.latent_gan else 0)
    one = (1, *_latent_shape(teacher.transformer))  # the watched grid is decoded image by image
    watching = decoder_activations(teacher.autoencoder, one, torch.float32, False).inference
    asking = student.kept + guided.inference + (_gradients(trained, compute) if in_parts else 0)
    return max(waiting + _learning(student, trained, compute, in_parts), asking, watching)


def stage_two_need(
    teacher: TeacherFolder,
    recogniser: ModelFolder,
    tokens: int,
    params: AdversarialParams,
    compute: ComputeParams,
) -> Need:
    """A frozen base, adapters with gradient and optimizer, the frozen autoencoder and backbone, the trained heads; the
    graphs of a step, of decoding and of judging.

    References made online need their generator too, a co-training its compensation.

    Args:
        teacher: The teacher's folder.
        recogniser: The recogniser that judges images.
        tokens: Text tokens per caption.
        params: The settings, validated.
        compute: Ranks, precision and sharding.

    Returns:
        Bytes of memory per rank and of disk.
    """
    sizes, (rows, in_parts) = transformer_sizes(teacher.transformer, params.lora), _rows_at_once(params, compute)
    checkpointing = params.gradient_checkpointing
    setting = Setting(rows, tokens, _bf16(compute), _running(True, compute), checkpointing, params.lora)
    step = transformer_activations(teacher.transformer, setting)
    seen = _seeing(teacher, recogniser, rows, params) if params.sees_images else NOTHING_SEEN
    cache = _cache_need(teacher, tokens, params, compute)
    copies = 2 if params.references == "online" and params.sees_images else 1
    state = copies * sizes.whole * _frozen(compute) + _stored(sizes.adapters, params.student)
    there = _gradients(sizes.adapters, compute) if in_parts else 0
    generating = max(step.kept + seen.generating + there, _learning(step, sizes.adapters, compute, in_parts))
    activations = max(generating, step.inference, seen.discriminating)
    disk = (KEPT + 1) * _stored(sizes.adapters, params.student) + 2 * sizes.whole * FLOAT + cache.disk
    memory = _placed(state, sizes, copies, sizes.adapters, compute) + seen.state + cache.memory + activations
    return Need(memory, disk)


def _seeing(teacher: TeacherFolder, recogniser: ModelFolder, rows: int, params: AdversarialParams) -> Seeing:
    """Decoding and judging; both graphs wait while the discriminator gives its gradient to the images."""
    channels, height, width = _latent_shape(teacher.transformer)
    autoencoder: AutoencoderKL = teacher.autoencoder.build()
    scale, checkpointing = 2 ** (len(autoencoder.config.block_out_channels) - 1), params.gradient_checkpointing
    images = (rows, 3, height * scale, width * scale)
    judge = judging(params.backbone, params.discriminator_hidden, recogniser, images, checkpointing)
    dtype = DTYPES[params.decoder_precision]
    decoding = decoder_activations(teacher.autoencoder, (rows, channels, height, width), dtype, checkpointing)
    state = weights(autoencoder) * dtype.itemsize + judge.backbone * FLOAT + _stored(judge.heads, params.discriminator)
    generating = max(decoding.kept + judge.generator.training, decoding.training)
    return Seeing(state, generating, max(decoding.inference, judge.discriminator.first))


def sampling_need(
    teacher: TeacherFolder, tokens: int, rows: int, *, guided: bool, decoded: bool, compute: ComputeParams
) -> Need:
    """A whole float32 transformer on every rank, ``rows`` at once, with guidance twice; a decoder if need be.

    Args:
        teacher: The teacher's folder.
        tokens: Text tokens per caption.
        rows: Images at once.
        guided: Run the network with and without the caption.
        decoded: Decode the latents too.
        compute: Ranks, precision and sharding.

    Returns:
        Bytes of memory per rank and of disk.
    """
    sizes = transformer_sizes(teacher.transformer, NO_ADAPTERS)
    state = sizes.whole * FLOAT + sizes.buffers
    setting = Setting(2 * rows if guided else rows, tokens, _bf16(compute), torch.float32, False, None, backward=False)
    most = transformer_activations(teacher.transformer, setting).inference
    if not decoded:
        return Need(state + most, 0)
    decoding = decoding_need(teacher, rows, compute)
    return Need(max(state + weights(teacher.autoencoder.build()) * FLOAT + most, state + decoding.memory), 0)


def decoding_need(teacher: TeacherFolder, rows: int, compute: ComputeParams) -> Need:
    """A float32 autoencoder that decodes ``rows`` latents at once, or one by one."""
    latents = (rows if compute.decoding == "whole" else 1, *_latent_shape(teacher.transformer))
    decoding = decoder_activations(teacher.autoencoder, latents, torch.float32, False)
    return Need(weights(teacher.autoencoder.build()) * FLOAT + decoding.inference, 0)


def encoding_need(teacher: TeacherFolder, dtype: torch.dtype) -> Need:
    """The weights of the text encoders, whole on every rank that encodes; what they keep in a forward is small."""
    return Need(sum(weights(encoder.build()) for encoder in teacher.text_encoders) * dtype.itemsize, 0)


def _cache_need(teacher: TeacherFolder, tokens: int, params: AdversarialParams, compute: ComputeParams) -> Need:
    """The compensation with gradient and optimizer, whole on every rank, and the residuals that a step stores."""
    if not isinstance(params, CotrainingParams):
        return Need(0, 0)
    transformer: SD3Transformer2DModel = teacher.transformer.build()
    width, (_, height, breadth) = transformer.inner_dim, latent_shape(transformer)
    with torch.device("meta"):
        compensation = Compensation(width, params.candidates, **params.compensation_function.model_dump())
    trained, (rows, _) = weights(compensation), _rows_at_once(params, compute)
    both_streams = tokens + height * breadth // transformer.config.patch_size**2
    residual = both_streams * width * (HALF if _bf16(compute) else FLOAT)
    residuals = residual * max(max(map(len, params.candidates)) * rows, _fitted_rows(params, compute))
    memory = _stored(trained, params.compensation) + trained * FLOAT + residuals
    return Need(memory, (KEPT + 1) * _stored(trained, params.compensation) + trained * FLOAT)


def _fitted_rows(params: CotrainingParams, compute: ComputeParams) -> int:
    """The rows of streams that fitting keeps: at the edges of all bands, in every step of every sample."""
    if not params.fitting_steps:
        return 0
    kept = len({block for bands in params.candidates for band in bands for block in band}) * params.num_inference_steps
    batches = min(params.fitting_batches, params.fitting_steps) + 1  # one is held out
    return kept * batches * -(-params.fitting_batch_size // compute.ranks)


def _stored(count: int, optimizer: OptimizerParams) -> int:
    """Bytes of trained weights and their moments."""
    return int(count * (FLOAT + MOMENTS[optimizer.kind]))


def _rows_at_once(params: StageOneParams | AdversarialParams, compute: ComputeParams) -> tuple[int, bool]:
    """Rows that a rank works on at once, and whether they are only a part of its own."""
    share = -(-params.batch_size // compute.ranks)
    rows = min(share, params.micro_batch_size or share)
    return rows, rows < share


def _learning(activations: Activations, trained: int, compute: ComputeParams, in_parts: bool) -> int:
    """The most in forward and backward with the gradients of weights: as they arise, or there already from before."""
    if _sharded(compute) or in_parts:
        return activations.training + _gradients(trained, compute)
    return activations.first


def _gradients(trained: int, compute: ComputeParams) -> int:
    return trained * FLOAT // compute.shards


def _placed(state: int, sizes: Sizes, copies: int, trained: int, compute: ComputeParams) -> int:
    """Bytes of weights, moments and buffers of so many transformers on one rank.

    Sharded, two blocks are whole at once, the running one and the next, and what is outside the blocks of every copy;
    in a backward one block's gradients too, before they are summed in float32. On the host with ``cpu_offload``.
    """
    buffers = copies * sizes.buffers
    if not _sharded(compute):
        return state + buffers
    element = HALF if _bf16(compute) else FLOAT
    gathered = (2 * sizes.block + copies * sizes.outside) * element
    reduced = min(trained, sizes.block) * (element + FLOAT)
    return (0 if compute.cpu_offload else -(-state // compute.shards)) + gathered + reduced + buffers


def _latent_shape(folder: ModelFolder) -> tuple[int, int, int]:
    config = SD3Transformer2DModel.load_config(folder.path)
    return config["in_channels"], config["sample_size"], config["sample_size"]


def _sharded(compute: ComputeParams) -> bool:
    return compute.is_sharded


def _bf16(compute: ComputeParams) -> bool:
    return compute.mixed_precision == "bf16"


def _frozen(compute: ComputeParams) -> int:
    """Bytes of a weight of the frozen backbone that roles share."""
    return HALF if _bf16(compute) else FLOAT


def _running(frozen: bool, compute: ComputeParams) -> torch.dtype:
    """The type of weights while they run: sharded ones are gathered in half precision."""
    half = _bf16(compute) and (frozen or _sharded(compute))
    return torch.bfloat16 if half else torch.float32
