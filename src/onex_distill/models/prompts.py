"""Batches of prompt embeddings.

Shapes: B batch, L tokens, D width, P pooled width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onex_distill.storage.tensor_table import TensorTable


@dataclass(frozen=True)
class PromptBatch:
    """``embeds`` (B, L, D) and ``pooled`` (B, P) of a batch of prompts."""

    embeds: Tensor
    pooled: Tensor

    def __getitem__(self, rows: Tensor | slice) -> "PromptBatch":
        return PromptBatch(self.embeds[rows], self.pooled[rows])

    def __len__(self) -> int:
        return len(self.embeds)

    def expand(self, count: int) -> "PromptBatch":
        """One prompt repeated ``count`` times, without copying."""
        return PromptBatch(self.embeds.expand(count, -1, -1), self.pooled.expand(count, -1))

    def to(self, device: torch.device) -> "PromptBatch":
        """In float32 on a device; tables hold what the text encoders gave, often half precision."""
        return PromptBatch(self.embeds.to(device, torch.float32), self.pooled.to(device, torch.float32))


def concatenate(first: PromptBatch, second: PromptBatch) -> PromptBatch:
    """Two batches as one."""
    return PromptBatch(torch.cat([first.embeds, second.embeds]), torch.cat([first.pooled, second.pooled]))


def read_prompts(table: TensorTable, rows: Sequence[int] | Tensor | np.ndarray, device: torch.device) -> PromptBatch:
    """Rows of an embeddings table, on a device."""
    prompts = PromptBatch(table.read("prompt_embeds", rows), table.read("pooled_prompt_embeds", rows))
    return prompts.to(device)
