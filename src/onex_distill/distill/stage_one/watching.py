"""What a training run of stage one writes down to be watched.

Shapes: B batch; values and sigma (B,); latents (N, C, H, W).
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import Field, PositiveInt
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.utils import make_grid

from onex_distill.engine.run import Run
from onex_distill.models.noise import noise_from_seeds
from onex_distill.models.prompts import read_prompts
from onex_distill.models.sampling import decode_latents, sample_latents
from onex_distill.models.velocity import Network
from onex_distill.parameters import Params
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable

logger = logging.getLogger(__name__)

COLLAPSE = 0.5  # of the first diversity

SIGMA_BINS = 4  # of equal width over [0, 1]


def by_sigma(name: str, values: Tensor, sigma: Tensor) -> dict[str, float]:
    """Values by the level they were taken at: ``<name>_<bin>``, and the share of samples in each bin.

    A bin's value is its sum over B, so that it is finite when nothing fell into it and adds up over ranks and steps;
    the mean in a bin is the quotient of the two columns' sums.
    """
    bins = (sigma * SIGMA_BINS).long().clamp(0, SIGMA_BINS - 1)
    columns = {}
    for number in range(SIGMA_BINS):
        inside = (bins == number).to(values.dtype)
        columns[f"{name}_{number}"] = float((values * inside).mean())
        columns[f"{name}_share_{number}"] = float(inside.mean())
    return columns


class WatchParams(Params):
    """A fixed grid of samples every ``every`` steps and after the last: ``prompts`` rows of ``images`` noises each."""

    every: PositiveInt
    prompts: PositiveInt
    images: int = Field(ge=2)

    def is_due(self, step: int, steps: int) -> bool:
        """Whether the grid is sampled after ``step`` of ``steps``."""
        return (step + 1) % self.every == 0 or step + 1 == steps


class SampleGrid:
    """The same prompts and noise, sampled from the student again and again.

    Every rank samples the whole grid, as sharded networks want; rank 0 keeps the latents in the run folder, adds the
    images to the run's events, and warns when the images of one prompt draw together.
    """

    def __init__(
        self,
        params: WatchParams,
        prompts: TensorTable,
        rows: np.ndarray,
        sigmas: Tensor,
        autoencoder: ModelFolder,
        run: Run,
    ) -> None:
        self.params, self.sigmas, self.run, self.ranks = params, sigmas, run, run.ranks
        self.folder = run.folder / "grid"
        self.rows = [row for row in rows[: params.prompts].tolist() for _ in range(params.images)]
        self.prompts = read_prompts(prompts, self.rows, run.ranks.device)
        self.autoencoder = autoencoder.load().to(run.ranks.device).eval() if run.ranks.is_first else None

    def sample(self, student: Network, shape: tuple[int, int, int], step: int) -> float:
        """Sample and keep the grid; return its diversity. Every rank calls this."""
        noise = noise_from_seeds(range(len(self.rows)), shape).to(self.ranks.device)
        with self.ranks.autocast():
            latents = sample_latents(student, noise, self.sigmas, self.prompts)
        diversity = grid_diversity(latents, self.params.images)
        if self.ranks.is_first:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({"latent": latents.float().cpu().contiguous()}, self.folder / f"step-{step + 1:08d}.safetensors")
            self.run.record_image(step, "grid", self.draw(latents.float()))
            first = grid_diversity(load_file(min(self.folder.glob("step-*")))["latent"], self.params.images)
            if diversity < COLLAPSE * first:
                logger.warning(
                    "%s: after step %d the fixed grid has %.2f of its first diversity; the student may be collapsing, "
                    "lower guidance.alpha",
                    self.run.folder.name,
                    step + 1,
                    diversity / first,
                )
        return diversity

    @torch.no_grad()
    def draw(self, latents: Tensor) -> Tensor:
        """One image of the grid, RGB in [0, 1], (3, H, W), a row per prompt; latents are decoded one by one."""
        images = torch.cat([decode_latents(self.autoencoder, latent[None]) for latent in latents]).clamp(0, 1)
        return make_grid(images.nan_to_num(), nrow=self.params.images)

    def write(self, folder: Path) -> None:
        """All grids as one table: ``latent``, and ``step`` and ``prompt_row`` in its index."""
        files = sorted(self.folder.glob("step-*"))
        steps = [int(path.stem.removeprefix("step-")) for path in files]
        once = pd.DataFrame({"prompt_row": self.rows})
        index = pd.concat([once.assign(step=step) for step in steps], ignore_index=True)
        latents = torch.cat([load_file(path)["latent"] for path in files])
        TensorTable.write(folder, index, {"latent": latents, "seconds": torch.zeros(len(latents))})


def grid_diversity(latents: Tensor, images: int) -> float:
    """Mean distance between the latents of one prompt, whose ``images`` samples follow each other."""
    groups = latents.detach().float().flatten(1).split(images)
    return float(torch.stack([torch.pdist(group).mean() for group in groups]).mean())
