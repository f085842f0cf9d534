"""Captions to embeddings through the pipeline's own ``encode_prompt``.

Shapes: B batch, L tokens (CLIP and T5 one after the other), D width, P pooled width.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

logger = logging.getLogger(__name__)


CHUNK = 1024  # captions tokenized at once
NOISY = ("diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3", "transformers.tokenization_utils_base")


@torch.no_grad()
def encode_prompts(
    pipeline: StableDiffusion3Pipeline, prompts: Sequence[str], max_sequence_length: int, batch_size: int = 64
) -> tuple[Tensor, Tensor]:
    """Embed prompts, as diffusers' pipeline does.

    What is cut off is ``count_truncated``'s to say, once; diffusers would log the lost words of every prompt.

    Args:
        pipeline: Has the text encoders and their tokenizers.
        prompts: The texts.
        max_sequence_length: Tokens that T5 reads.
        batch_size: Prompts at once.

    Returns:
        ``prompt_embeds`` (B, L, D) and ``pooled_prompt_embeds`` (B, P), on the CPU.
    """
    embeds, pooled = [], []
    with _quiet():
        for start in range(0, len(prompts), batch_size):
            batch = list(prompts[start : start + batch_size])
            encoded = pipeline.encode_prompt(
                prompt=batch,
                prompt_2=None,
                prompt_3=None,
                device=pipeline.text_encoder.device,
                do_classifier_free_guidance=False,
                max_sequence_length=max_sequence_length,
            )
            embeds.append(encoded[0].cpu())
            pooled.append(encoded[2].cpu())
    return torch.cat(embeds), torch.cat(pooled)


def count_truncated(pipeline: StableDiffusion3Pipeline, prompts: Sequence[str], max_sequence_length: int) -> int:
    """Warn once about prompts that lose words to a token limit, and return how many there are."""
    limits = (
        (pipeline.tokenizer, pipeline.tokenizer_max_length),
        (pipeline.tokenizer_2, pipeline.tokenizer_max_length),
        (pipeline.tokenizer_3, max_sequence_length),
    )
    truncated = 0
    for start in range(0, len(prompts), CHUNK):
        batch = list(prompts[start : start + CHUNK])
        too_long = torch.zeros(len(batch), dtype=torch.bool)
        for tokenizer, limit in limits:
            if tokenizer is not None:
                lengths = [len(ids) for ids in tokenizer(batch, verbose=False).input_ids]
                too_long |= torch.tensor(lengths) > limit
        truncated += int(too_long.sum())
    if truncated:
        logger.warning(
            "%d of %d captions are longer than the token limit (%d CLIP, %d T5) and lose their last words.",
            truncated,
            len(prompts),
            pipeline.tokenizer_max_length,
            max_sequence_length,
        )
    return truncated


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the libraries' warnings about single prompts inside the block."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
