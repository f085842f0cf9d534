"""Stage one's validation metric, and the student that was best by it.

Shapes: N images; latents (N, C, H, W), features (N, D).
"""

import logging
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from onex_distill.engine.ranks import Ranks
from onex_distill.engine.run import Run
from onex_distill.metrics.distances import frechet_distance
from onex_distill.models.noise import noise_from_seeds
from onex_distill.models.prompts import read_prompts
from onex_distill.models.sampling import sample_latents
from onex_distill.models.velocity import Network
from onex_distill.storage.files import remove_folder, replace_folder
from onex_distill.storage.tensor_table import TensorTable

logger = logging.getLogger(__name__)

IMAGES_PER_FEATURE = 4


class Validation:
    """How far a student's latents are from the teacher's of the same plan, in the Frechet distance of pooled latents.

    ``latents`` has a column ``latent`` and the plan (``prompt_row``, ``noise_seed``) as its index.
    """

    def __init__(
        self, latents: TensorTable, embeddings: TensorTable, sigmas: Tensor, batch_size: int, ranks: Ranks
    ) -> None:
        """Read the teacher's side. Raises ValueError when the table has too few images."""
        self.plan, self.embeddings, self.sigmas, self.ranks = latents.index, embeddings, sigmas, ranks
        self.batch_size = -(-batch_size // ranks.count)
        _, channels, height, width = latents.read("latent", [0]).shape
        self.shape = channels, height, width
        self.cells = cells_per_side(len(latents), self.shape)
        batches = latents.batches(batch_size)
        self.teacher = torch.cat([pooled(latents.read("latent", rows), self.cells) for rows in batches])

    def distance(self, student: Network) -> float:
        """The distance, the same on every rank. Every rank calls this, and the network equally often."""
        own = torch.cat([self._features(student, rows) for rows in self._own_rows().split(self.batch_size)])
        features = self.ranks.gather(own)[: len(self.plan)].cpu()
        value = latent_distance(features, self.teacher) if self.ranks.is_first else 0.0
        return self.ranks.total({"distance": value})["distance"]

    def _own_rows(self) -> Tensor:
        """This rank's rows, dealt out in turn; where they do not go round, ranks begin again at the first."""
        rounds = -(-len(self.plan) // self.ranks.count)
        return (torch.arange(rounds) * self.ranks.count + self.ranks.index) % len(self.plan)

    def _features(self, student: Network, rows: Tensor) -> Tensor:
        chosen, device = self.plan.iloc[rows.numpy()], self.ranks.device
        noise = noise_from_seeds(chosen["noise_seed"], self.shape).to(device)
        prompts = read_prompts(self.embeddings, chosen["prompt_row"].to_numpy(), device)
        with self.ranks.autocast():
            return pooled(sample_latents(student, noise, self.sigmas, prompts), self.cells)


def cells_per_side(images: int, shape: tuple[int, int, int]) -> int:
    """How many cells per side the grid has over which latents (C, H, W) are averaged: as many as the images allow.

    Every mean of a channel over a cell is one feature, and there are at least four images per feature: with fewer,
    covariances would be noise. Raises ValueError when there are too few images even for one cell.
    """
    channels, height, width = shape
    cells = math.isqrt(images // (IMAGES_PER_FEATURE * channels))
    if not cells:
        raise ValueError(
            f"{images} validation images are too few for latents of {channels} channels; raise "
            f"validation_set.images_per_caption, or its captions, to {IMAGES_PER_FEATURE * channels} images or more"
        )
    return min(cells, height, width)


def pooled(latents: Tensor, cells: int) -> Tensor:
    """Means over a grid of ``cells`` x ``cells``, (N, C * cells ** 2) in float32."""
    return adaptive_avg_pool2d(latents.float(), cells).flatten(1)


def latent_distance(features: Tensor, reference: Tensor) -> float:
    """The Frechet distance between two sets of features (N, D); NaN when one of them is not finite."""
    if not features.isfinite().all():
        return math.nan
    return frechet_distance(features, reference)


class BestStudent:
    """The student of the lowest distance so far: a folder of the run's, ``best-<finished steps>``.

    A checkpoint says which it was, so those that kept checkpoints name stay too. A run that went back to a checkpoint
    meets folders of the steps after it, and writes or removes them anew.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.finished, self.distance = run, 0, math.inf

    def offer(self, finished: int, distance: float, save: Callable[[Path], None]) -> None:
        """Keep the student that ``save`` writes after ``finished`` steps if its distance is the lowest so far.

        Every rank calls this. Raises OSError when it cannot be written.
        """
        if distance < self.distance:
            final = self._folder(finished)
            partial = final.with_name(f".partial-{final.name}")
            save(partial)
            if self.run.ranks.is_first:
                replace_folder(partial, final)
                logger.debug("%s: the best student is that of step %d now.", self.run.folder.name, finished)
            self.finished, self.distance = finished, distance
        if self.run.ranks.is_first:
            for number in self._superseded(finished):
                remove_folder(self._folder(number))

    def copy_to(self, folder: Path) -> None:
        """Copy the best student. Raises FloatingPointError when there is none."""
        if not self.finished:
            raise FloatingPointError(
                f"{self.run.folder.name} has no best student: no validation distance is finite; lower the learning rate"
            )
        shutil.copytree(self._folder(self.finished), folder, dirs_exist_ok=True)

    def state_dict(self) -> dict[str, Any]:
        """Which student it is."""
        return {"finished": self.finished, "distance": self.distance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.finished, self.distance = state["finished"], state["distance"]

    def _folder(self, finished: int) -> Path:
        return self.run.folder / f"best-{finished:08d}"

    def _superseded(self, finished: int) -> Iterator[int]:
        """Steps whose students neither this run, after ``finished`` steps, nor one of its checkpoints needs."""
        numbers = _numbers(self.run.folder, "best-")
        known = [number for number in numbers if number < finished or number == self.finished]
        checkpoints = _numbers(self.run.folder, "step-")
        named = {max((n for n in known if n <= step), default=0) for step in checkpoints} | {self.finished}
        return (number for number in numbers if number not in named)


def _numbers(folder: Path, prefix: str) -> list[int]:
    return [int(path.name.removeprefix(prefix)) for path in folder.glob(f"{prefix}*")]
