"""The inference path of a K-step student: noise, every step but the last without gradient, the last with, x0.

Shapes: B batch, K steps, N image tokens, D width; latents (B, C, H, W).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor

from onex_distill.engine.ranks import Ranks
from onex_distill.flow.conversions import euler_step
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.sampling import sample_latents
from onex_distill.models.velocity import last_features, predict_velocity


class Endpoint(NamedTuple):
    """The end of an inference path: x0 (B, C, H, W), and the image tokens (B, N, D) that the last step's came from."""

    x0: Tensor
    features: Tensor


class InferencePath:
    """A student on the levels (K + 1,) of its inference."""

    def __init__(self, transformer: SD3Transformer2DModel, levels: Tensor, ranks: Ranks) -> None:
        self.transformer, self.levels, self.ranks = transformer, levels, ranks

    def begin_step(self, step: int) -> None:
        """What has to be said before the forward of ``step``: nothing on the plain path."""

    @contextmanager
    def as_it_began(self) -> Iterator[None]:
        """Run what is inside without anything that stands in for blocks: the plain path has nothing of the kind."""
        yield

    def sample(self, noise: Tensor, prompts: PromptBatch) -> Tensor:
        """x0 as inference makes it; the last step alone has a gradient."""
        return self.last_step(self.before_last(noise, prompts), prompts)

    def before_last(self, noise: Tensor, prompts: PromptBatch) -> Tensor:
        """The latents (B, C, H, W) that the last step starts from, without gradient."""
        with self.ranks.autocast():
            return sample_latents(self.transformer, noise, self.levels[:-1], prompts, before_step=self.begin_step)

    def last_step(self, x_t: Tensor, prompts: PromptBatch) -> Tensor:
        """x0 as inference makes it of ``x_t``, with a gradient."""
        self.begin_step(len(self.levels) - 2)
        return self._to_x0(x_t, prompts)

    @torch.no_grad()
    def plain_last_step(self, x_t: Tensor, prompts: PromptBatch) -> Endpoint:
        """Where every block of the transformer, as it is now, takes the same latents in the last step."""
        with self.as_it_began(), last_features(self.transformer) as features:
            x0 = self._to_x0(x_t, prompts)
        return Endpoint(x0, features[-1])

    def _to_x0(self, x_t: Tensor, prompts: PromptBatch) -> Tensor:
        sigma = float(self.levels[-2])
        with self.ranks.autocast():
            velocity = predict_velocity(self.transformer, x_t, sigma, prompts)
        return euler_step(x_t, velocity, sigma, 0.0)
