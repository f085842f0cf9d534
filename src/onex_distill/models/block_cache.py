"""Distill-Cache: reuse bands of transformer blocks from an earlier step (paper, section on Distill-Cache).

A computing step stores a band's total residual of both streams, delta = output of the band - input of the band. A
reusing step skips the band and adds f(delta) to its input, f being the compensation of each stream (which may look at
that input too). The cache is a set of hooks on one untouched ``SD3Transformer2DModel`` and its blocks; detaching them
restores the plain model.

Shapes: B batch, N image tokens, L text tokens, D width; streams are text (B, L, D) and image (B, N, D).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from diffusers import SD3Transformer2DModel
from diffusers.hooks import HookRegistry, ModelHook
from torch import Tensor, nn

from onex_distill.models.cache_plan import CachePlan, check_bands
from onex_distill.models.compensation import Compensation, Streams

HOOK_NAME = "onex_block_cache"


class Place(NamedTuple):
    """Where a block stands in the plan: the number of its band, and whether it is the band's first or last block."""

    band: int
    is_first: bool
    is_last: bool


@dataclass
class Step:
    """One step of a sampling: what every band does in it, its input, and its residual as stored last."""

    computes: tuple[bool, ...]
    inputs: list[Streams | None]
    deltas: list[Streams | None]
    sigma: Tensor | None = None


class BlockCache:
    """The cache of one transformer. ``attach`` it, tell it of every step with ``begin_step``, ``detach`` it.

    Raises ValueError when the compensation does not fit the transformer, or the plan not the compensation.
    """

    def __init__(self, transformer: SD3Transformer2DModel, plan: CachePlan, compensation: Compensation) -> None:
        check_compensation(compensation, transformer)
        self.transformer = transformer
        self.compensation = compensation
        self.step: Step | None = None
        self.use(plan)

    def use(self, plan: CachePlan) -> None:
        """Take another plan from the next sampling on; its bands must be among the compensation's."""
        for band in plan.bands:
            if band not in self.compensation.bands:
                known = [list(known) for known in self.compensation.bands]
                raise ValueError(
                    f"the cache plan has band {list(band)}, the compensation only {known}; plan with those"
                )
        self.reset()
        self.plan = plan
        self.places = {
            block: Place(number, block == start, block == stop - 1)
            for number, (start, stop) in enumerate(plan.bands)
            for block in range(start, stop)
        }

    def attach(self) -> "BlockCache":
        """Put hooks on the transformer and on every block that any plan may skip."""
        HookRegistry.check_if_exists_or_initialize(self.transformer).register_hook(_ForwardHook(self), HOOK_NAME)
        for index in self._blocks():
            block: nn.Module = self.transformer.transformer_blocks[index]
            HookRegistry.check_if_exists_or_initialize(block).register_hook(_BlockHook(self, index), HOOK_NAME)
        return self

    def detach(self) -> None:
        """Remove the hooks and forget what was stored."""
        HookRegistry.check_if_exists_or_initialize(self.transformer).remove_hook(HOOK_NAME, recurse=True)
        self.reset()

    def reset(self) -> None:
        """Forget the stored residuals, as before a sampling; the model then runs as if it had no cache."""
        self.step = None

    def begin_step(self, step: int) -> None:
        """Do in the next forward what the plan says of ``step``; step 0 begins a new sampling.

        Raises ValueError for a step that the plan does not have.
        """
        if step >= self.plan.num_inference_steps:
            raise ValueError(
                f"step {step} is beyond the cache plan of {self.plan.num_inference_steps} steps; give it one row a step"
            )
        if step == 0:
            self.reset()
        nothing: list[Streams | None] = [None] * len(self.plan.bands)
        # every step owns its lists: what the backward pass computes again must not reach a later step
        deltas = list(self.step.deltas) if self.step is not None else list(nothing)
        self.step = Step(self.plan.computes[step], inputs=nothing, deltas=deltas)

    @contextmanager
    def during(self, step: Step | None) -> Iterator[None]:
        """Run what is inside as part of an earlier step."""
        current, self.step = self.step, step
        try:
            yield
        finally:
            self.step = current

    def skip(self, step: Step, band: int, text: Tensor, image: Tensor) -> Streams:
        """A band's output, estimated from its stored residual."""
        delta = step.deltas[band]
        if delta is None or step.sigma is None:
            raise RuntimeError("no residual is stored: run a computing step (begin_step(0)) before a reusing one")
        residual = self.compensation(self.plan.bands[band], delta, (text, image), step.sigma)
        return text + residual[0], image + residual[1]

    def _blocks(self) -> list[int]:
        return sorted({block for start, stop in self.compensation.bands for block in range(start, stop)})


def check_compensation(compensation: Compensation, transformer: SD3Transformer2DModel) -> None:
    """Raise ValueError unless the compensation has the transformer's width and its bands lie inside the transformer."""
    check_bands(compensation.bands, len(transformer.transformer_blocks))
    if compensation.config.width != transformer.inner_dim:
        raise ValueError(
            f"the compensation is {compensation.config.width} wide, the transformer {transformer.inner_dim}; "
            "train the compensation with this transformer"
        )


class _BlockHook(ModelHook):
    """The part of the cache that sits on one block."""

    def __init__(self, cache: BlockCache, index: int) -> None:
        super().__init__()
        self.cache = cache
        self.index = index

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Streams:
        step, place = self.cache.step, self.cache.places.get(self.index)
        if step is None or place is None:
            return self.fn_ref.original_forward(*args, **kwargs)
        image: Tensor = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        text: Tensor = kwargs["encoder_hidden_states"] if "encoder_hidden_states" in kwargs else args[1]
        if not step.computes[place.band]:
            return self.cache.skip(step, place.band, text, image) if place.is_first else (text, image)
        if place.is_first:
            step.inputs[place.band] = (text, image)
        streams: Streams = self.fn_ref.original_forward(*args, **kwargs)
        entered = step.inputs[place.band]
        if place.is_last and entered is not None:
            step.deltas[place.band] = (streams[0] - entered[0], streams[1] - entered[1])
            step.inputs[place.band] = None
        return streams


class _ForwardHook(ModelHook):
    """The part of the cache that sits on the transformer: it notes sigma, and keeps recomputed blocks in step."""

    def __init__(self, cache: BlockCache) -> None:
        super().__init__()
        self.cache = cache

    def new_forward(self, module: SD3Transformer2DModel, *args: Any, **kwargs: Any) -> Any:
        step = self.cache.step
        if step is None:
            return self.fn_ref.original_forward(*args, **kwargs)
        timestep: Tensor = kwargs["timestep"] if "timestep" in kwargs else args[3]
        step.sigma = timestep / 1000
        if not (module.gradient_checkpointing and torch.is_grad_enabled()):
            return self.fn_ref.original_forward(*args, **kwargs)
        checkpoint = module._gradient_checkpointing_func
        module._gradient_checkpointing_func = _in_step(self.cache, checkpoint)
        try:
            return self.fn_ref.original_forward(*args, **kwargs)
        finally:
            module._gradient_checkpointing_func = checkpoint


def _in_step(cache: BlockCache, checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Gradient checkpointing whose recomputation runs in the step of the forward, whatever has begun since."""

    def checkpointed(block: nn.Module, *inputs: Any) -> Any:
        step = cache.step

        def run(*inputs: Any) -> Any:
            with cache.during(step):
                return block(*inputs)

        return checkpoint(run, *inputs)

    return checkpointed
