"""The teacher's trajectories on training captions, kept at the levels of a student's steps (stage one, regression)."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from diffusers import SD3Transformer2DModel
from pydantic import PositiveInt
from torch import Tensor

from onex_distill.distill.stage_one.params import StageOneParams
from onex_distill.distill.stage_one.regression import TRAJECTORY
from onex_distill.engine.job import Job
from onex_distill.engine.run import Run
from onex_distill.engine.speed import compile_blocks
from onex_distill.engine.tables import write_table
from onex_distill.flow.guidance import as_sigma
from onex_distill.flow.sigmas import refined_levels, step_sigmas
from onex_distill.models.conditions import Conditions
from onex_distill.models.noise import latent_shape, noise_from_seeds
from onex_distill.models.prompts import read_prompts
from onex_distill.models.sampling import Guidance, sample_latents


class TrajectoriesJob(Job):
    """Follow the teacher in ``teacher_steps`` steps, guided as ``params`` guides the real score.

    An index of captions and noise, and the column ``trajectory``; no row without ``params.regression``.
    """

    conditions: Conditions
    params: StageOneParams
    teacher_steps: PositiveInt
    batch_size: PositiveInt

    def run(self, run: Run) -> None:
        """Write the table ``trajectories``."""
        device, teacher = run.ranks.device, self.conditions.teacher
        transformer: SD3Transformer2DModel = teacher.transformer.load().to(device).eval()
        if self.compute.compile == "blocks":
            compile_blocks(transformer)
        embeddings, plan, guidance = self.conditions.embeddings.open(), self.plan(), self.params.guidance
        alpha = as_sigma(guidance.alpha, guidance.axis, teacher.shift)
        empty = read_prompts(self.conditions.empty.open(), [0], device)
        guided = Guidance(guidance.scale, empty, alpha)
        student_levels = step_sigmas(max(self.params.step_counts), teacher.shift)
        steps = refined_levels(student_levels, step_sigmas(self.teacher_steps, teacher.shift))

        def follow(rows: range) -> Mapping[str, Tensor]:
            chosen = plan.iloc[rows.start : rows.stop]
            prompts = read_prompts(embeddings, chosen["prompt_row"].to_numpy(), device)
            latents = [noise_from_seeds(chosen["noise_seed"], latent_shape(transformer)).to(device)]
            with run.ranks.autocast():
                for levels in steps:
                    latents.append(sample_latents(transformer, latents[-1], levels, prompts, guided))
            return {TRAJECTORY: torch.stack(latents, 1)}

        write_table(run, "trajectories", plan, self.batch_size, follow)

    def plan(self) -> pd.DataFrame:
        """Training captions drawn at random, and the noise of each: ``prompt_row``, ``prompt_id``, ``noise_seed``."""
        regression, table = self.params.regression, self.conditions.embeddings.open()
        if regression is None:
            return pd.DataFrame({"prompt_row": [], "prompt_id": [], "noise_seed": []}).astype({"prompt_row": int})
        draws = np.random.default_rng(regression.seed)
        rows = draws.choice(table.rows_where("split", "train"), regression.trajectories)
        seeds = range(regression.seed, regression.seed + regression.trajectories)
        return pd.DataFrame({"prompt_row": rows, "prompt_id": table.index["id"].to_numpy()[rows], "noise_seed": seeds})
