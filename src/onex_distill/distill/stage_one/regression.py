"""Regression to trajectories of the teacher, beside distribution matching (progressive distillation in one stride).

Distribution matching compares distributions alone, so that a caption's images may all drift the same way; a path of the
teacher says for single images where each step has to lead.

Shapes: B batch, K steps; latents (B, C, H, W).
"""

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from onex_distill.distill.stage_one.params import RegressionParams
from onex_distill.engine.randomness import generator
from onex_distill.engine.ranks import Ranks
from onex_distill.models.prompts import PromptBatch, read_prompts
from onex_distill.models.velocity import Network, predict_velocity
from onex_distill.storage.tensor_table import TensorTable

TRAJECTORY = "trajectory"  # the column (N, K + 1, C, H, W): latents at the levels of the student's steps


class Regression:
    """The teacher's trajectories, of which every update draws as many rows as it has, and a step of each.

    ``levels`` (K + 1,) are the student's. Raises ValueError for trajectories at the levels of another number of steps.
    """

    def __init__(
        self,
        params: RegressionParams,
        trajectories: TensorTable,
        embeddings: TensorTable,
        levels: Tensor,
        batch_size: int,
        ranks: Ranks,
    ) -> None:
        kept = trajectories.read(TRAJECTORY, [0]).shape[1]
        if kept != len(levels):
            raise ValueError(
                f"{trajectories.folder} holds trajectories at {kept} levels, where a student of {len(levels) - 1} "
                f"steps has {len(levels)}; sample them anew (--from-nodes=student.sample_trajectories)"
            )
        self.params, self.trajectories, self.embeddings = params, trajectories, embeddings
        self.prompt_rows = torch.tensor(trajectories.index["prompt_row"].to_numpy())
        self.levels, self.batch_size, self.ranks = levels, batch_size, ranks

    def backward(self, student: Network, rows: slice, step: int, weight: float) -> float:
        """The gradients of the weighted loss of some of this rank's rows in one update; the loss without weight.

        Args:
            student: The network that learns.
            rows: Which of this rank's rows, counted from the first of them.
            step: The number of the update.
            weight: The factor of the rows' mean loss.

        Returns:
            The mean loss of the rows.
        """
        draws = generator(self.params.seed, step, "regression")
        drawn = torch.randint(len(self.prompt_rows), (self.batch_size,), generator=draws)
        steps = torch.randint(len(self.levels) - 1, (self.batch_size,), generator=draws)
        share = self.ranks.share(self.batch_size)
        chosen, k = drawn[share][rows], steps[share][rows]
        paths = self.trajectories.read(TRAJECTORY, chosen).to(self.ranks.device)
        each = torch.arange(len(k), device=paths.device)
        prompts = read_prompts(self.embeddings, self.prompt_rows[chosen].numpy(), self.ranks.device)
        levels = self.levels.float().to(self.ranks.device)
        with self.ranks.autocast():
            loss = regression_loss(student, paths[each, k], paths[each, k + 1], levels[k], levels[k + 1], prompts)
        (loss * self.params.weight * weight).backward()
        return float(loss.detach())


def regression_loss(
    student: Network, x: Tensor, target: Tensor, upper: Tensor, lower: Tensor, prompts: PromptBatch
) -> Tensor:
    """The mean squared error of the student's velocity against the straight line from ``x`` to ``target``.

    Args:
        student: The network that learns.
        x: The teacher's latents where a step begins, (B, C, H, W).
        target: Its latents where the step ends.
        upper: The levels of ``x``, (B,).
        lower: The levels of ``target``, (B,).
        prompts: The captions' embeddings, B rows.

    Returns:
        The loss: the error of the student's Euler step, divided by the step's length.
    """
    velocity = predict_velocity(student, x, upper, prompts)
    return mse_loss(velocity, (x - target) / (upper - lower)[:, None, None, None])
