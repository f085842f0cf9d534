"""Captions to embeddings through the pipeline's own ``encode_prompt``.

Shapes: B batch, L tokens (CLIP and T5 one after the other), D width, P pooled width.
"""

import logging
from collections.abc import Sequence

import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

logger = logging.getLogger(__name__)


@torch.no_grad()
def encode_prompts(
    pipeline: StableDiffusion3Pipeline, prompts: Sequence[str], max_sequence_length: int, batch_size: int = 64
) -> tuple[Tensor, Tensor]:
    """``prompt_embeds`` (B, L, D) and ``pooled_prompt_embeds`` (B, P) of every prompt, on the CPU."""
    embeds, pooled = [], []
    for start in range(0, len(prompts), batch_size):
        batch = list(prompts[start : start + batch_size])
        encoded = pipeline.encode_prompt(
            prompt=batch,
            prompt_2=None,
            prompt_3=None,
            do_classifier_free_guidance=False,
            max_sequence_length=max_sequence_length,
        )
        embeds.append(encoded[0].cpu())
        pooled.append(encoded[2].cpu())
    return torch.cat(embeds), torch.cat(pooled)


def count_truncated(pipeline: StableDiffusion3Pipeline, prompts: Sequence[str], max_sequence_length: int) -> int:
    """Warn about prompts that lose words to a token limit, and return how many there are."""
    limits = (
        (pipeline.tokenizer, pipeline.tokenizer_max_length),
        (pipeline.tokenizer_2, pipeline.tokenizer_max_length),
        (pipeline.tokenizer_3, max_sequence_length),
    )
    truncated = 0
    for prompt in prompts:
        lengths = [
            (len(tokenizer(prompt, verbose=False).input_ids), limit)
            for tokenizer, limit in limits
            if tokenizer is not None
        ]
        truncated += any(length > limit for length, limit in lengths)
    if truncated:
        logger.warning(
            "%d of %d captions are longer than the token limit (%d CLIP, %d T5) and lose their last words.",
            truncated,
            len(prompts),
            pipeline.tokenizer_max_length,
            max_sequence_length,
        )
    return truncated
