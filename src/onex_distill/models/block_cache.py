"""Distill-Cache: reuse a band of transformer blocks from the last full step (paper, section on Distill-Cache).

A full step stores the band's total residual of both streams, delta = output of the band - input of the band. A reusing
step skips the band and adds f(delta) to its input, f being the compensation of each stream. The cache is a set of
hooks on the blocks of one untouched ``SD3Transformer2DModel``; detaching them restores the plain model.

Shapes: B batch, N image tokens, L text tokens, D width; streams are (B, N, D) and (B, L, D).
"""

from typing import Any, Literal

from diffusers import SD3Transformer2DModel
from diffusers.hooks import HookRegistry, ModelHook
from torch import Tensor, nn

from onex_distill.models.compensation import Compensation

HOOK_NAME = "onex_block_cache"
Mode = Literal["inactive", "store", "reuse"]
Streams = tuple[Tensor, Tensor]


def check_cached_blocks(cached_blocks: tuple[int, int], num_layers: int) -> None:
    """Raise ValueError unless the half-open band lies strictly between the first and the last block.

    The first block sees the new timestep before anything is reused; the last has no text output to restore.
    """
    start, stop = cached_blocks
    if not 1 <= start < stop <= num_layers - 1:
        raise ValueError(
            f"cached_blocks {list(cached_blocks)} must be a non-empty half-open range inside blocks 1 to "
            f"{num_layers - 2} of {num_layers}, leaving out the first and the last; try [1, {min(5, num_layers - 1)}]"
        )


class BlockCache:
    """The cache of one transformer. ``attach`` it, choose the mode of every step with ``begin_step``, ``detach`` it."""

    def __init__(
        self, transformer: SD3Transformer2DModel, cached_blocks: tuple[int, int], compensation: Compensation
    ) -> None:
        check_cached_blocks(cached_blocks, len(transformer.transformer_blocks))
        if compensation.config.width != transformer.inner_dim:
            raise ValueError(
                f"the compensation is {compensation.config.width} wide, the transformer {transformer.inner_dim}; "
                "train the compensation with this transformer"
            )
        self.transformer = transformer
        self.cached_blocks = cached_blocks
        self.compensation = compensation
        self.mode: Mode = "inactive"
        self.band_input: Streams | None = None
        self.delta: Streams | None = None

    def attach(self) -> "BlockCache":
        """Put a hook on every block of the band."""
        for index in range(*self.cached_blocks):
            block: nn.Module = self.transformer.transformer_blocks[index]
            HookRegistry.check_if_exists_or_initialize(block).register_hook(_BandHook(self, index), HOOK_NAME)
        return self

    def detach(self) -> None:
        """Remove the hooks and forget what was stored."""
        for index in range(*self.cached_blocks):
            block: nn.Module = self.transformer.transformer_blocks[index]
            HookRegistry.check_if_exists_or_initialize(block).remove_hook(HOOK_NAME, recurse=False)
        self.reset()

    def reset(self) -> None:
        """Forget the stored residual, as at the start of a sampling."""
        self.mode, self.band_input, self.delta = "inactive", None, None

    def begin_step(self, step: int) -> None:
        """The plan of a student: step 0 runs every block and stores the residual, every later step reuses it."""
        if step == 0:
            self.reset()
        self.mode = "store" if step == 0 else "reuse"

    def enter_band(self, streams: Streams) -> None:
        """Remember what goes into the band."""
        self.band_input = streams

    def leave_band(self, streams: Streams) -> None:
        """Store the band's residual."""
        if self.band_input is None:
            raise RuntimeError("the band was left without having been entered")
        text, image = self.band_input
        self.delta = (streams[0] - text, streams[1] - image)
        self.band_input = None

    def skip_band(self, text: Tensor, image: Tensor) -> Streams:
        """The band's output, estimated from the stored residual."""
        if self.delta is None:
            raise RuntimeError("no residual is stored: run a full step (begin_step(0)) before a reusing one")
        return text + self.compensation.text(self.delta[0]), image + self.compensation.image(self.delta[1])


class _BandHook(ModelHook):
    """The part of the cache that sits on one block."""

    def __init__(self, cache: BlockCache, index: int) -> None:
        super().__init__()
        self.cache = cache
        self.is_first = index == cache.cached_blocks[0]
        self.is_last = index == cache.cached_blocks[1] - 1

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Streams:
        image: Tensor = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        text: Tensor = kwargs["encoder_hidden_states"] if "encoder_hidden_states" in kwargs else args[1]
        if self.cache.mode == "reuse":
            return self.cache.skip_band(text, image) if self.is_first else (text, image)
        if self.cache.mode == "store" and self.is_first:
            self.cache.enter_band((text, image))
        streams: Streams = self.fn_ref.original_forward(*args, **kwargs)
        if self.cache.mode == "store" and self.is_last:
            self.cache.leave_band(streams)
        return streams
