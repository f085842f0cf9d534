"""The real side of stage two: images of the reference generator, decoded once beforehand or made when asked for.

Shapes: B batch; noise (B, C, H, W); images RGB in [0, 1], (B, 3, H*f, W*f).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor

from onex_distill.engine.randomness import generator
from onex_distill.engine.ranks import Ranks
from onex_distill.models.noise import noise_from_seeds
from onex_distill.models.prompts import PromptBatch, read_prompts
from onex_distill.models.sampling import decode_latents, sample_latents
from onex_distill.storage.tensor_table import TensorTable


@dataclass
class Batch:
    """Prompts, the noise that both generators start from, and where the references of these rows are found."""

    prompts: PromptBatch
    noise: Tensor
    rows: Tensor

    def part(self, rows: slice) -> "Batch":
        """Some of the rows."""
        return Batch(self.prompts[rows], self.noise[rows], self.rows[rows])


class References(Protocol):
    """Where a trainer gets its batches and their reference images from."""

    def rows(self, step: int, count: int) -> Tensor:
        """The rows of one step for the whole batch, (count,): the same on every rank."""

    def batch(self, step: int, count: int) -> Batch:
        """This rank's rows of one step."""

    def images(self, batch: Batch) -> Tensor:
        """The reference images of a batch, without gradient."""


class StoredReferences:
    """References from a table with ``image`` (uint8), its index ``prompt_row`` and ``noise_seed``."""

    def __init__(
        self, table: TensorTable, embeddings: TensorTable, shape: tuple[int, int, int], seed: int, ranks: Ranks
    ) -> None:
        self.table, self.embeddings = table, embeddings
        self.shape, self.seed, self.ranks = shape, seed, ranks

    def rows(self, step: int, count: int) -> Tensor:
        """Rows of the table, drawn with replacement."""
        return torch.randint(len(self.table), (count,), generator=generator(self.seed, step, "stage two"))

    def batch(self, step: int, count: int) -> Batch:
        """This rank's rows of one step."""
        rows = self.rows(step, count)[self.ranks.share(count)]
        index = self.table.index.iloc[rows.numpy()]
        prompts = read_prompts(self.embeddings, index["prompt_row"].to_numpy(), self.ranks.device)
        return Batch(prompts, noise_from_seeds(index["noise_seed"], self.shape).to(self.ranks.device), rows)

    def images(self, batch: Batch) -> Tensor:
        """The stored images of a batch."""
        return self.table.read("image", batch.rows).to(self.ranks.device).float() / 255


class OnlineReferences:
    """References made by ``transformer`` when asked for: captions of the reference split, with noise never used before.

    ``levels`` (K + 1,) are the reference generator's own. A run that asks for no images has neither of the networks.
    """

    def __init__(
        self,
        transformer: SD3Transformer2DModel | None,
        autoencoder: AutoencoderKL | None,
        levels: Tensor,
        embeddings: TensorTable,
        shape: tuple[int, int, int],
        seed: int,
        ranks: Ranks,
    ) -> None:
        self.transformer, self.autoencoder, self.levels = transformer, autoencoder, levels
        self.embeddings, self.captions = embeddings, embeddings.rows_where("split", "reference")
        self.shape, self.seed, self.ranks = shape, seed, ranks

    def rows(self, step: int, count: int) -> Tensor:
        """Rows of the prompt embeddings, drawn with replacement from the reference split."""
        chosen = torch.randint(len(self.captions), (count,), generator=generator(self.seed, step, "stage two"))
        return torch.tensor(self.captions)[chosen]

    def batch(self, step: int, count: int) -> Batch:
        """This rank's rows of one step."""
        noise = torch.randn((count, *self.shape), generator=generator(self.seed, step, "reference noise"))
        share, device = self.ranks.share(count), self.ranks.device
        rows = self.rows(step, count)[share]
        return Batch(read_prompts(self.embeddings, rows, device), noise[share].to(device), rows)

    @torch.no_grad()
    def images(self, batch: Batch) -> Tensor:
        """What the reference generator makes of a batch."""
        if self.transformer is None or self.autoencoder is None:
            raise RuntimeError("this run asks for no images, so that there is no reference generator")
        with self.ranks.autocast():
            latents = sample_latents(self.transformer, batch.noise, self.levels, batch.prompts)
        return decode_latents(self.autoencoder, latents)
