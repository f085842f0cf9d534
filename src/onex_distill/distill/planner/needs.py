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
from onex_distill.models.noise import latent_shape
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


def stage_one_need(teacher: TeacherFolder, tokens: int, params: StageOneParams, compute: ComputeParams) -> Need:
    """Three copies of the transformer, or one with two sets of adapters; the graphs of student and fake score.

    On disk the best students that checkpoints name, and twice the last and the best: in the run and as datasets.
    """
    sizes = transformer_sizes(teacher.transformer, params.lora)
    if params.parametrization == "full":
        copies = 4 if params.ema_decay else 3
        state, trained, kept = copies * sizes.whole * FLOAT, sizes.whole, (copies - 1) * sizes.whole
    else:
        trained, kept = sizes.adapters, 3 * sizes.adapters
        state = sizes.whole * _frozen(compute) + kept * FLOAT
    moments = trained * (MOMENTS[params.student.kind] + MOMENTS[params.fake_score.kind])
    state += int(moments)
    disk = (KEPT + 1) * int(kept * FLOAT + moments + sizes.whole * FLOAT) + 4 * sizes.whole * FLOAT
    fixed = weights(teacher.autoencoder.build()) * FLOAT
    activations = _stage_one_activations(teacher, tokens, params, compute, trained)
    return Need(_placed(state, sizes, trained, compute) + fixed + activations, disk)


def _stage_one_activations(
    teacher: TeacherFolder, tokens: int, params: StageOneParams, compute: ComputeParams, trained: int
) -> int:
    """The student's graph waits while the fake score learns and while teacher and fake score are asked."""
    rows, transformer = -(-params.batch_size // compute.ranks), teacher.transformer
    lora = None if params.parametrization == "full" else params.lora
    setting = Setting(
        rows, tokens, _bf16(compute), _running(lora is not None, compute), params.gradient_checkpointing, lora
    )
    student = transformer_activations(transformer, setting)
    guided = transformer_activations(transformer, setting._replace(rows=2 * rows, backward=False))
    waiting = student.kept * (2 if params.latent_gan else 1)
    grid = (params.watch.prompts * params.watch.images, *_latent_shape(transformer))
    learning = waiting + _with_gradients(student, trained, compute)
    return max(learning, student.kept + guided.inference, _decoding(teacher, grid).inference)


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
    """
    transformer = teacher.transformer
    sizes, rows = transformer_sizes(transformer, params.lora), -(-params.batch_size // compute.ranks)
    setting = Setting(rows, tokens, _bf16(compute), _running(True, compute), False, params.lora)
    step = transformer_activations(transformer, setting)
    seen = _seeing(teacher, recogniser, rows, params) if params.sees_images else NOTHING_SEEN
    cache = _cache_need(teacher, tokens, params, compute)
    copies = 2 if params.references == "online" and params.sees_images else 1
    state = copies * sizes.whole * FLOAT + _stored(sizes.adapters, params.student)
    generating = max(step.kept + seen.generating, _with_gradients(step, sizes.adapters, compute))
    activations = max(generating, step.inference, seen.discriminating)
    disk = (KEPT + 1) * _stored(sizes.adapters, params.student) + 2 * sizes.whole * FLOAT + cache.disk
    memory = _placed(state, sizes, sizes.adapters, compute) + seen.state + cache.memory + activations
    return Need(memory, disk)


def _seeing(teacher: TeacherFolder, recogniser: ModelFolder, rows: int, params: AdversarialParams) -> Seeing:
    """Decoding and judging; both graphs wait while the discriminator gives its gradient to the images."""
    channels, height, width = _latent_shape(teacher.transformer)
    autoencoder: AutoencoderKL = teacher.autoencoder.build()
    scale = 2 ** (len(autoencoder.config.block_out_channels) - 1)
    judge = judging(params, recogniser, (rows, 3, height * scale, width * scale))
    decoding = _decoding(teacher, (rows, channels, height, width))
    state = (weights(autoencoder) + judge.backbone) * FLOAT + _stored(judge.heads, params.discriminator)
    generating = max(decoding.kept + judge.generator.training, decoding.training)
    return Seeing(state, generating, max(decoding.inference, judge.discriminator.first))


def _cache_need(teacher: TeacherFolder, tokens: int, params: AdversarialParams, compute: ComputeParams) -> Need:
    """The compensation with gradient and optimizer, whole on every rank, and the residuals that a step stores."""
    if not isinstance(params, CotrainingParams):
        return Need(0, 0)
    transformer: SD3Transformer2DModel = teacher.transformer.build()
    width, (_, height, breadth) = transformer.inner_dim, latent_shape(transformer)
    with torch.device("meta"):
        compensation = Compensation(width, params.candidates, **params.compensation_function.model_dump())
    trained, rows = weights(compensation), -(-params.batch_size // compute.ranks)
    both_streams = tokens + height * breadth // transformer.config.patch_size**2
    residuals = max(map(len, params.candidates)) * rows * both_streams * width * (HALF if _bf16(compute) else FLOAT)
    memory = _stored(trained, params.compensation) + trained * FLOAT + residuals
    return Need(memory, (KEPT + 1) * _stored(trained, params.compensation) + trained * FLOAT)


def _stored(count: int, optimizer: OptimizerParams) -> int:
    """Bytes of trained weights and their moments."""
    return int(count * (FLOAT + MOMENTS[optimizer.kind]))


def _with_gradients(activations: Activations, trained: int, compute: ComputeParams) -> int:
    """The most in forward and backward with the gradients of weights: as they arise, or sharded and there already."""
    if _sharded(compute):
        return activations.training + trained * FLOAT // compute.shards
    return activations.first


def _placed(state: int, sizes: Sizes, trained: int, compute: ComputeParams) -> int:
    """Bytes of weights, gradients and moments on one rank.

    Sharded, two blocks are whole at once, the running one and the next, with what is outside the blocks; in a backward
    one block's gradients too, before they are summed in float32. On the host with ``cpu_offload``.
    """
    if not _sharded(compute):
        return state
    element = HALF if _bf16(compute) else FLOAT
    gathered = (2 * sizes.block + sizes.outside) * element
    reduced = min(trained, sizes.block) * (element + FLOAT)
    return (0 if compute.cpu_offload else -(-state // compute.shards)) + gathered + reduced


def _decoding(teacher: TeacherFolder, latents: tuple[int, ...]) -> Activations:
    rows, channels, height, width = latents
    return decoder_activations(teacher.autoencoder, (rows, channels, height, width))


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
