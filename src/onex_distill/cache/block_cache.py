"""Distill-Cache: reuse bands of transformer blocks from an earlier step (paper, section on Distill-Cache).

A computing step stores a band's total residual of both streams, delta = output of the band - input of the band. A
reusing step skips the band and adds f(delta) to its input, f being the compensation of each stream (which may look at
that input too). The cache is a set of hooks on one untouched ``SD3Transformer2DModel`` and its blocks; detaching them
restores the plain model, and what torch.compile made of either serves again when they are attached again.

Shapes: B batch, N image tokens, L text tokens, D width; streams are text (B, L, D) and image (B, N, D).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from onex_distill.cache.compensation import Compensation, Streams
from onex_distill.cache.plan import CachePlan, check_bands


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
        blocks = transformer.transformer_blocks
        self.hooks = [_ForwardHook(self, transformer), *(_BlockHook(self, blocks[i], i) for i in self._blocks())]

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
        """Put hooks on the transformer and on every block that any plan may skip.

        Raises ValueError for a transformer that has a cache.
        """
        if is_cached(self.transformer):
            raise ValueError("the transformer has a block cache; detach that one first")
        for hook in self.hooks:
            hook.attach()
        return self

    def detach(self) -> None:
        """Remove the hooks and forget what was stored."""
        for hook in self.hooks:
            hook.detach()
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
        start, stop = self.plan.bands[band]
        # int() makes constants of what torch.compile takes for variables once the plan has changed
        residual = self.compensation((int(start), int(stop)), delta, (text, image), step.sigma)
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


def is_cached(transformer: SD3Transformer2DModel) -> bool:
    """Whether a block cache is attached."""
    modules = (transformer, *transformer.transformer_blocks)
    return any(isinstance(getattr(module.forward, "__self__", None), _Hook) for module in modules)


class _Hook:
    """Stands in for a module's forward while attached.

    diffusers' registry of hooks makes a new forward for every hook it takes, for which torch.compile compiles again,
    and a copy of a module that it hooks runs the original; here both forwards are kept, as bound methods.
    """

    def __init__(self, cache: BlockCache, module: nn.Module) -> None:
        self.cache = cache
        self.module = module
        self.original = module.forward
        self.replacement = self.forward

    def attach(self) -> None:
        """Take the place of the forward that the module has now."""
        if self.module.forward != self.original:
            self.original = self.module.forward
        self.module.forward = self.replacement

    def detach(self) -> None:
        """Give the module its forward back, unless another has taken the place since."""
        if self.module.forward == self.replacement:
            del self.module.forward
            if self.module.forward != self.original:
                self.module.forward = self.original

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module does instead."""
        raise NotImplementedError


class _BlockHook(_Hook):
    """The part of the cache that sits on one block."""

    def __init__(self, cache: BlockCache, module: nn.Module, index: int) -> None:
        super().__init__(cache, module)
        self.index = index

    def forward(self, *args: Any, **kwargs: Any) -> Streams:
        """Run the block, and store its band's residual; or skip it."""
        step, place = self.cache.step, self.cache.places.get(self.index)
        if step is None or place is None:
            return self.original(*args, **kwargs)
        image: Tensor = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        text: Tensor = kwargs["encoder_hidden_states"] if "encoder_hidden_states" in kwargs else args[1]
        if not step.computes[place.band]:
            return self.cache.skip(step, place.band, text, image) if place.is_first else (text, image)
        if place.is_first:
            step.inputs[place.band] = (text, image)
        streams: Streams = self.original(*args, **kwargs)
        entered = step.inputs[place.band]
        if place.is_last and entered is not None:
            step.deltas[place.band] = (streams[0] - entered[0], streams[1] - entered[1])
            step.inputs[place.band] = None
        return streams


class _ForwardHook(_Hook):
    """The part of the cache that sits on the transformer: it notes sigma, and keeps recomputed blocks in step."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the transformer in the step that was begun."""
        step, module = self.cache.step, self.cache.transformer
        if step is None:
            return self.original(*args, **kwargs)
        timestep: Tensor = kwargs["timestep"] if "timestep" in kwargs else args[3]
        step.sigma = timestep / 1000
        if not (module.gradient_checkpointing and torch.is_grad_enabled()):
            return self.original(*args, **kwargs)
        checkpoint = module._gradient_checkpointing_func
        module._gradient_checkpointing_func = _in_step(self.cache, checkpoint)
        try:
            return self.original(*args, **kwargs)
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
