"""Distill-Cache: reuse bands of transformer blocks from an earlier step (paper, section on Distill-Cache).

A computing step stores a band's total residual of both streams, delta = output of the band - input of the band. A
reusing step skips the band and adds f(delta) to its input, f being the compensation of each stream (which may look at
that input too). The cache works through hooks on one untouched ``SD3Transformer2DModel`` and its blocks; detaching the
last cache restores the plain model, and what torch.compile made of either serves again when one is attached again.

A transformer may serve several samplings at once: the hooks ask the thread that calls them which cache it has attached,
and run the plain model for a thread that has none.

Shapes: B batch, N image tokens, L text tokens, D width; streams are text (B, L, D) and image (B, N, D).
"""

import threading
from collections.abc import Callable, Iterator, Sequence
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


_ATTACHING = threading.Lock()


class _PerThread(threading.local):
    """The cache that a thread has attached to one transformer last."""

    cache: "BlockCache | None" = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "_PerThread":
        return _PerThread()  # nobody samples with the copy of a transformer yet


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
        self._outer: BlockCache | None = None  # what this thread had attached before
        self._attached = False

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
        """Let this thread's forwards of the transformer go through this cache; other threads' do not.

        Raises ValueError for a cache that is attached already.
        """
        if self._attached:
            raise ValueError("this block cache is attached already; detach it first, or make another one")
        hooks = _Hooks.of(self.transformer)
        hooks.attach()
        self._outer, self._attached = hooks.here.cache, True
        hooks.here.cache = self
        return self

    def detach(self) -> None:
        """Undo ``attach`` in the thread that called it, and forget what was stored."""
        if self._attached:
            hooks = _Hooks.of(self.transformer)
            hooks.here.cache, self._outer, self._attached = self._outer, None, False
            hooks.detach()
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
                f"step {step} is beyond the cache plan of {self.plan.num_inference_steps} steps; give it a row per step"
            )
        if step == 0:
            self.reset()
        nothing: list[Streams | None] = [None] * len(self.plan.bands)
        # every step owns its lists: what the backward pass computes again must not reach a later step
        deltas = list(self.step.deltas) if self.step is not None else list(nothing)
        self.step = Step(self.plan.computes[step], inputs=nothing, deltas=deltas)

    def resume(self, deltas: Sequence[Streams]) -> None:
        """Go on as if a computing step had stored these residuals, one per band of the plan."""
        nothing: list[Streams | None] = [None] * len(deltas)
        self.step = Step(self.plan.computes[0], inputs=nothing, deltas=list(deltas))

    @contextmanager
    def during(self, step: Step | None) -> Iterator[None]:
        """Run what is inside as part of an earlier step, in whatever thread (autograd has its own)."""
        here = _Hooks.of(self.transformer).here
        outer, current = here.cache, self.step
        here.cache, self.step = self, step
        try:
            yield
        finally:
            here.cache, self.step = outer, current

    def skip(self, step: Step, band: int, text: Tensor, image: Tensor) -> Streams:
        """A band's output, estimated from its stored residual.

        Args:
            step: The step that is running, with the residuals of the last computing one.
            band: The number of the band in the plan.
            text: The text stream that enters it, (B, L, D).
            image: The image stream, (B, N, D).

        Returns:
            The streams that would leave the band, of the same shapes.

        Raises:
            RuntimeError: No residual is stored.
            ValueError: The latents changed their shape since it was stored.
        """
        delta = step.deltas[band]
        if delta is None or step.sigma is None:
            raise RuntimeError("no residual is stored: run a computing step (begin_step(0)) before a reusing one")
        if delta[1].shape != image.shape:
            raise ValueError(
                f"the latents changed from {tuple(delta[1].shape[:2])} (rows, tokens) to {tuple(image.shape[:2])} "
                "between the steps, and a reused residual belongs to the old ones; change them before the first step, "
                "or sample with every block (nfe = the number of steps)"
            )
        start, stop = self.plan.bands[band]
        # int() makes constants of what torch.compile takes for variables once the plan has changed
        residual = self.compensation((int(start), int(stop)), delta, (text, image), step.sigma)
        return text + residual[0], image + residual[1]


def check_compensation(compensation: Compensation, transformer: SD3Transformer2DModel) -> None:
    """Raise ValueError unless the compensation has the transformer's width and its bands lie inside the transformer."""
    check_bands(compensation.bands, len(transformer.transformer_blocks))
    if compensation.config.width != transformer.inner_dim:
        raise ValueError(
            f"the compensation is {compensation.config.width} wide, the transformer {transformer.inner_dim}; "
            "train the compensation with this transformer"
        )


def is_cached(transformer: SD3Transformer2DModel) -> bool:
    """Whether any thread has a block cache attached."""
    hooks: _Hooks | None = vars(transformer).get(_Hooks.NAME)
    return hooks is not None and hooks.attached > 0


class _Hooks:
    """All hooks of one transformer, which keeps them; they are in place while any thread has a cache attached."""

    NAME = "_block_cache_hooks"

    def __init__(self, transformer: SD3Transformer2DModel) -> None:
        blocks = enumerate(transformer.transformer_blocks)
        self.attached, self.here = 0, _PerThread()
        self.hooks = [
            _ForwardHook(self.here, transformer),
            *(_BlockHook(self.here, block, number) for number, block in blocks),
        ]

    @classmethod
    def of(cls, transformer: SD3Transformer2DModel) -> "_Hooks":
        """The transformer's hooks, made when they are first asked for."""
        hooks: _Hooks = vars(transformer).setdefault(cls.NAME, cls(transformer))
        return hooks

    def attach(self) -> None:
        with _ATTACHING:
            if not self.attached:
                for hook in self.hooks:
                    hook.attach()
            self.attached += 1

    def detach(self) -> None:
        with _ATTACHING:
            self.attached -= 1
            if not self.attached:
                for hook in self.hooks:
                    hook.detach()


class _Hook:
    """Stands in for a module's forward while attached.

    diffusers' registry of hooks makes a new forward for every hook it takes, for which torch.compile compiles again,
    and a copy of a module that it hooks runs the original; here both forwards are kept, as bound methods.
    """

    def __init__(self, here: _PerThread, module: nn.Module) -> None:
        self.here = here
        self.module = module
        self.original = module.forward
        self.replacement = self.forward

    def current(self) -> tuple[BlockCache, Step] | None:
        """The cache that this thread samples through, and its step."""
        cache = self.here.cache
        if cache is None or cache.step is None:
            return None
        return cache, cache.step

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

    def __init__(self, here: _PerThread, module: nn.Module, index: int) -> None:
        super().__init__(here, module)
        self.index = index

    def forward(self, *args: Any, **kwargs: Any) -> Streams:
        """Run the block, and store its band's residual; or skip it."""
        current = self.current()
        place = None if current is None else current[0].places.get(self.index)
        if current is None or place is None:
            return self.original(*args, **kwargs)
        cache, step = current
        image: Tensor = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        text: Tensor = kwargs["encoder_hidden_states"] if "encoder_hidden_states" in kwargs else args[1]
        if not step.computes[place.band]:
            return cache.skip(step, place.band, text, image) if place.is_first else (text, image)
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
        current = self.current()
        module: Any = self.module
        if current is None:
            return self.original(*args, **kwargs)
        cache, step = current
        timestep: Tensor = kwargs["timestep"] if "timestep" in kwargs else args[3]
        step.sigma = timestep / 1000
        if not (module.gradient_checkpointing and torch.is_grad_enabled()):
            return self.original(*args, **kwargs)
        checkpoint = module._gradient_checkpointing_func
        module._gradient_checkpointing_func = _in_step(cache, checkpoint)
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
