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

from onex_distill.cache.plan import Band, check_bands
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.noise import latent_shape, noise_from_seeds
from onex_distill.models.prompts import PromptBatch, read_prompts
from onex_distill.models.sampling import sample_latents
from onex_distill.storage.tensor_table import TensorTable

STREAMS = ("text", "image")
KEYS = ["step", "block", "stop", "stream"]
Streams = tuple[Tensor | None, Tensor]
Ends = tuple[Tensor, Tensor] | None


class _Recorder:
    """Hooks on the blocks of a transformer that compare each block's and band's residual with the step before."""

    def __init__(self, transformer: SD3Transformer2DModel, bands: Sequence[Band]) -> None:
        blocks = list(transformer.transformer_blocks)
        check_bands(bands, len(blocks))
        singles = [(index, index + 1) for index in range(len(blocks))]
        self.ranges = list(dict.fromkeys([*singles, *((int(start), int(stop)) for start, stop in bands)]))
        self.streams: list[Streams] = []
        self.previous: list[Streams] = []
        self.step = 0
        self.rows: list[dict[str, Any]] = []
        self.handles = [block.register_forward_pre_hook(self._enter, with_kwargs=True) for block in blocks]
        self.handles.append(blocks[-1].register_forward_hook(self._leave))

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self.handles:
            handle.remove()

    def _enter(self, _block: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.streams.append((kwargs["encoder_hidden_states"], kwargs["hidden_states"]))

    def _leave(self, _block: nn.Module, _args: tuple[Any, ...], output: Streams) -> None:
        self.streams.append(output)
        for band in self.ranges if self.step > 0 else ():
            for number, stream in enumerate(STREAMS):
                self._compare(band, stream, _ends(self.streams, band, number), _ends(self.previous, band, number))
        self.previous, self.streams = self.streams, []
        self.step += 1

    def _compare(self, band: Band, stream: str, now: Ends, before: Ends) -> None:
        if now is None or before is None:
            return
        residual = now[1] - now[0]
        errors = ((residual - (before[1] - before[0])).norm(dim=1) / residual.norm(dim=1)).tolist()
        place = {"step": self.step, "block": band[0], "stop": band[1], "stream": stream}
        self.rows += [{**place, "reuse_error": error} for error in errors]


def _ends(streams: list[Streams], band: Band, number: int) -> Ends:
    """One stream before and after a band, (B, tokens * D) in float32; the last block has no text output."""
    before, after = streams[band[0]][number], streams[band[1]][number]
    if before is None or after is None:
        return None
    return before.float().flatten(1), after.float().flatten(1)


def sampled_reuse_errors(
    transformer: SD3Transformer2DModel, noise: Tensor, sigmas: Tensor, prompts: PromptBatch, bands: Sequence[Band]
) -> pd.DataFrame:
    """Reuse errors of every block and band while sampling, a row per sample.

    Args:
        transformer: The network that samples.
        noise: Where sampling starts, (B, C, H, W).
        sigmas: The levels of the steps, (K + 1,).
        prompts: The captions' embeddings, B rows.
        bands: Half-open ranges of blocks, measured beside every single block.

    Returns:
        Columns ``step`` (the later of two adjacent ones), ``block`` and ``stop`` (a half-open range of blocks),
        ``stream`` and ``reuse_error``.

    Raises:
        ValueError: A band cannot be skipped.
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
    """Reuse errors averaged over the rows of a plan, sampled without guidance.

    Args:
        transformer: The network that samples.
        embeddings: The captions' embeddings.
        plan: What is sampled: ``prompt_row`` and ``noise_seed``.
        shift: The shift of the levels.
        num_inference_steps: Steps of a sampling.
        bands: Half-open ranges of blocks, measured beside every single block.
        batch_size: Samples at once.

    Returns:
        ``reuse_error`` per step, block, stop and stream.

    Raises:
        ValueError: A band cannot be skipped.
    """
    sigmas = step_sigmas(num_inference_steps, shift)
    parts = []
    for start in range(0, len(plan), batch_size):
        rows = plan.iloc[start : start + batch_size]
        noise = noise_from_seeds(rows["noise_seed"], latent_shape(transformer)).to(transformer.device)
        prompts = read_prompts(embeddings, rows["prompt_row"].to_numpy(), transformer.device)
        parts.append(sampled_reuse_errors(transformer, noise, sigmas, prompts, bands))
    return pd.concat(parts).groupby(KEYS)["reuse_error"].mean().reset_index()
