"""Reuse error: how much what a block adds changes from one step to the next (paper, reuse error against block index).

With r_k the residual (output - input) of a block or band in step k, the reuse error is |r_k - r_{k-1}| / |r_k|, norms
over a stream's tokens and width: what plain caching of it alone would get wrong, relative to what it adds.

Shapes: B batch, N image tokens, L text tokens, D width; streams are text (B, L, D) and image (B, N, D).
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.cache_plan import Band, check_bands
from onex_distill.models.noise import latent_shape, noise_from_seeds
from onex_distill.models.prompts import PromptBatch, read_prompts
from onex_distill.models.sampling import sample_latents
from onex_distill.storage.tensor_table import TensorTable

STREAMS = ("text", "image")
KEYS = ["step", "block", "stop", "stream"]


class _Recorder:
    """Hooks on the blocks of a transformer that compare each block's and band's residual with the step before."""

    def __init__(self, transformer: SD3Transformer2DModel, bands: Sequence[Band]) -> None:
        blocks = list(transformer.transformer_blocks)
        check_bands(bands, len(blocks))
        singles = [(index, index + 1) for index in range(len(blocks))]
        self.ranges = list(dict.fromkeys([*singles, *((int(start), int(stop)) for start, stop in bands)]))
        self.streams: list[tuple[Tensor | None, Tensor]] = []
        self.previous: dict[tuple[Band, str], Tensor] = {}
        self.step = 0
        self.rows: list[dict[str, Any]] = []
        self.handles = [block.register_forward_pre_hook(self._enter, with_kwargs=True) for block in blocks]
        self.handles.append(blocks[-1].register_forward_hook(self._leave))

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self.handles:
            handle.remove()

    def _enter(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.streams.append((kwargs["encoder_hidden_states"], kwargs["hidden_states"]))

    def _leave(self, block: nn.Module, args: tuple[Any, ...], output: tuple[Tensor | None, Tensor]) -> None:
        self.streams.append(output)
        current = {}
        for start, stop in self.ranges:
            for name, before, after in zip(STREAMS, self.streams[start], self.streams[stop], strict=True):
                if before is not None and after is not None:  # the last block has no text output
                    current[(start, stop), name] = (after - before).float().flatten(1)
        for (band, name), residual in current.items():
            if self.step > 0:
                self._compare(band, name, residual, self.previous[band, name])
        self.previous, self.streams = current, []
        self.step += 1

    def _compare(self, band: Band, stream: str, residual: Tensor, previous: Tensor) -> None:
        error = (residual - previous).norm(dim=1) / residual.norm(dim=1)
        place = {"step": self.step, "block": band[0], "stop": band[1], "stream": stream}
        self.rows += [{**place, "reuse_error": value} for value in error.tolist()]


def sampled_reuse_errors(
    transformer: SD3Transformer2DModel, noise: Tensor, sigmas: Tensor, prompts: PromptBatch, bands: Sequence[Band]
) -> pd.DataFrame:
    """Reuse errors while sampling from ``noise`` (B, C, H, W) through ``sigmas`` (K + 1,), a row a sample.

    Columns ``step`` (the later of two adjacent ones), ``block`` and ``stop`` (a half-open range: every single block,
    and ``bands``), ``stream``, ``reuse_error``. Raises ValueError for a band that the transformer cannot skip.
    """
    recorder = _Recorder(transformer, bands)
    try:
        sample_latents(transformer, noise, sigmas, prompts)
    finally:
        recorder.detach()
    return pd.DataFrame(recorder.rows)


@torch.no_grad()
def mean_reuse_errors(
    transformer: SD3Transformer2DModel,
    embeddings: TensorTable,
    plan: pd.DataFrame,
    shift: float,
    num_inference_steps: int,
    bands: Sequence[Band],
    batch_size: int,
) -> pd.DataFrame:
    """Reuse errors averaged over the rows of a plan (``prompt_row``, ``noise_seed``), sampled without guidance."""
    sigmas = step_sigmas(num_inference_steps, shift)
    parts = []
    for start in range(0, len(plan), batch_size):
        rows = plan.iloc[start : start + batch_size]
        noise = noise_from_seeds(rows["noise_seed"], latent_shape(transformer)).to(transformer.device)
        prompts = read_prompts(embeddings, rows["prompt_row"].to_numpy(), transformer.device)
        parts.append(sampled_reuse_errors(transformer, noise, sigmas, prompts, bands))
    return pd.concat(parts).groupby(KEYS)["reuse_error"].mean().reset_index()
