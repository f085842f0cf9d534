"""Fitting a compensation to the residuals that a student really adds, before anything is trained adversarially.

It needs no gradient through the transformer, and one sampling serves every band and many updates. The residual of a
later step is regressed on that of the first step, as the paper's cache plan reuses it.

Shapes: B batch, N image tokens, L text tokens, D width; streams are text (B, L, D) and image (B, N, D).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from onex_distill.cache.compensation import Compensation, Streams
from onex_distill.cache.plan import Band

Entering = Mapping[int, Streams]  # what enters some of the blocks in one forward, by block


def edges(bands: Sequence[Band]) -> frozenset[int]:
    """The blocks that the residuals of the bands are read at: the first of each, and the first behind it."""
    return frozenset(block for band in bands for block in band)


@contextmanager
def entering_streams(transformer: SD3Transformer2DModel, blocks: Collection[int]) -> Iterator[list[dict[int, Streams]]]:
    """The streams that enter each of these blocks, an entry per forward that runs inside the context."""
    forwards: list[dict[int, Streams]] = []

    def begin(_module: nn.Module, _args: tuple[Any, ...]) -> None:
        forwards.append({})

    def entering(number: int) -> Callable[..., None]:
        def enter(_block: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            forwards[-1][number] = (kwargs["encoder_hidden_states"], kwargs["hidden_states"])

        return enter

    handles = [transformer.register_forward_pre_hook(begin)]
    for number in blocks:
        block = transformer.transformer_blocks[number]
        handles.append(block.register_forward_pre_hook(entering(number), with_kwargs=True))
    try:
        yield forwards
    finally:
        for handle in handles:
            handle.remove()


def residual_loss(compensation: Compensation, forwards: Sequence[Entering], sigmas: Tensor) -> Tensor:
    """Squared error of the compensated residuals over the squared size of the true ones, sample by sample.

    The mean over samples, bands, streams and later steps, so that a batch may be split. ``forwards`` has, for every
    step of a sampling through ``sigmas`` (K + 1,), the streams that enter the bands and the blocks behind them. Plain
    caching has the squared reuse error.
    """
    errors = []
    for step in range(1, len(forwards)):
        for band in compensation.bands:
            stored, true = band_residual(forwards[0], band), band_residual(forwards[step], band)
            sigma = sigmas[step].to(true[0].device).expand(len(true[0]))
            compensated = compensation(band, stored, forwards[step][band[0]], sigma)
            errors += [_relative_error(*streams) for streams in zip(compensated, true, strict=True)]
    return torch.stack(errors).mean()


def band_residual(entering: Entering, band: Band) -> Streams:
    """What a band adds to both streams in one forward, from what enters its first block and the next behind it."""
    before, after = entering[band[0]], entering[band[1]]
    return after[0] - before[0], after[1] - before[1]


def _relative_error(compensated: Tensor, true: Tensor) -> Tensor:
    errors = (compensated.float() - true.float()).square().mean((1, 2))
    return (errors / true.float().square().mean((1, 2))).mean()
