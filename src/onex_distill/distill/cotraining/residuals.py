"""Residuals that a compensation is fitted to: sampled once, in whole batches, and reused by every fitting step.

Shapes: R batches, B rows of a rank in one, P of them at once; streams are text (B, L, D) and image (B, N, D).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor

from onex_distill.cache.compensation import Streams
from onex_distill.cache.fitting import Entering, edges, entering_streams
from onex_distill.cache.plan import Bands
from onex_distill.distill.cotraining.params import CotrainingParams
from onex_distill.engine.accumulation import micro_batches
from onex_distill.engine.randomness import generator
from onex_distill.engine.ranks import Ranks
from onex_distill.models.noise import latent_shape
from onex_distill.models.prompts import PromptBatch, read_prompts
from onex_distill.models.sampling import sample_latents
from onex_distill.storage.tensor_table import TensorTable

Steps = list[dict[int, Streams]]  # what enters some of the blocks, by block, in every step of a sampling
HELD_OUT = -1  # the number of the batch that no step fits to


class ResidualPool:
    """What enters the edges of the bands in every step of R batches of samplings, a row per place and batch.

    A rank has its own places of every batch, and every update takes one row of each place: so the number of ranks
    changes nothing. In R updates, an epoch, every row is used once, each place's in an order of its own.
    """

    def __init__(self, batches: Iterable[Steps], count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self.steps: Steps = []
        for number, batch in enumerate(batches):
            self.steps = self.steps or [_room(step, count) for step in batch]
            for room, step in zip(self.steps, batch, strict=True):
                for block, streams in step.items():
                    room[block][0][number], room[block][1][number] = streams

    def chosen(self, step: int, size: int) -> Tensor:
        """The batch that each of ``size`` places, those of all ranks, is taken from in an update: (size,)."""
        epoch, position = divmod(step, self.count)
        order = torch.rand((self.count, size), generator=generator(self.seed, epoch, "fitting order")).argsort(0)
        return order[position]

    def rows(self, batches: Tensor, places: slice) -> list[Entering]:
        """What every step has of some places, each from a batch of its own.

        Args:
            batches: The batch for every place of this rank, (B,).
            places: Which of this rank's places, P of them.

        Returns:
            Streams by block, text (P, L, D) and image (P, N, D), a mapping per step.
        """
        index = batches[places], torch.arange(places.start, places.stop)
        return [{block: (text[index], image[index]) for block, (text, image) in step.items()} for step in self.steps]


class Residuals(NamedTuple):
    """What fitting reads."""

    pool: ResidualPool
    held_out: Steps  # of captions and noise that no step fits to


class ResidualSampler:
    """Samples a student plainly, and keeps what enters the edges of bands; captions are of the training split.

    ``levels`` (K + 1,) are the student's.
    """

    def __init__(
        self, transformer: SD3Transformer2DModel, levels: Tensor, bands: Bands, params: CotrainingParams, ranks: Ranks
    ) -> None:
        self.transformer, self.levels, self.blocks = transformer, levels, edges(bands)
        self.params, self.ranks = params, ranks

    def pool(self, embeddings: TensorTable) -> ResidualPool:
        """As many batches as fitting shares, or fewer where its steps would not use more."""
        params, size = self.params, self.params.fitting_batch_size
        count = min(params.fitting_batches, params.fitting_steps)
        captions, share = torch.tensor(embeddings.rows_where("split", "train")), self.ranks.share(size)

        def batch(number: int) -> Steps:
            draws = generator(params.seed, number, "fitting captions")
            chosen = captions[torch.randint(len(captions), (size,), generator=draws)][share]
            return self.sample(read_prompts(embeddings, chosen, self.ranks.device), number)

        return ResidualPool(map(batch, range(count)), count, params.seed)

    def sample(self, prompts: PromptBatch, number: int) -> Steps:
        """This rank's rows of one batch, from noise that belongs to its number."""
        size, shape = self.params.fitting_batch_size, latent_shape(self.transformer)
        noise = torch.randn((size, *shape), generator=generator(self.params.seed, number, "fitting noise"))
        noise = noise[self.ranks.share(size)].to(prompts.embeds)
        parts = [
            self._sampled(noise[rows], prompts[rows])
            for rows in micro_batches(size, self.params.micro_batch_size, self.ranks)
        ]
        return [
            {block: _joined([part[step][block] for part in parts]) for block in self.blocks}
            for step in range(len(parts[0]))
        ]

    @torch.no_grad()
    def _sampled(self, noise: Tensor, prompts: PromptBatch) -> Steps:
        with self.ranks.autocast(), entering_streams(self.transformer, self.blocks) as steps:
            sample_latents(self.transformer, noise, self.levels, prompts)
        return steps


def _room(step: dict[int, Streams], count: int) -> dict[int, Streams]:
    return {
        block: (text.new_empty((count, *text.shape)), image.new_empty((count, *image.shape)))
        for block, (text, image) in step.items()
    }


def _joined(parts: Sequence[Streams]) -> Streams:
    return torch.cat([text for text, _ in parts]), torch.cat([image for _, image in parts])
