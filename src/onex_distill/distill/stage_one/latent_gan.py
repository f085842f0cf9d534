"""DMD2's adversarial term: a small head on the fake score's features tells stored latents from the student's.

Both are re-noised to the level of the fake score's update before it sees them (Yin et al., 2024, DMD2, section 4.3).

Shapes: B batch, N image tokens, D width; latents (B, C, H, W); sigma (B,); logits (B, 1).
"""

import torch
from diffusers import SD3Transformer2DModel
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from onex_distill.engine.optimisation import OptimizerParams, Stepper
from onex_distill.engine.randomness import generator, seeded
from onex_distill.engine.ranks import Ranks
from onex_distill.flow.conversions import renoise
from onex_distill.losses.adversarial import label_smoothed_discriminator_loss, label_smoothed_generator_loss
from onex_distill.models.prompts import PromptBatch, read_prompts
from onex_distill.models.velocity import last_features, predict_velocity
from onex_distill.parameters import Params
from onex_distill.storage.tensor_table import TensorTable


class LatentGanParams(Params):
    """Weights beside the student's and the fake score's own losses (published for SDXL: 5e-3, 1e-2)."""

    student_weight: PositiveFloat
    fake_score_weight: PositiveFloat
    hidden: PositiveInt


class LatentHead(nn.Module):
    """A logit per image: layer norm and a hidden layer on every token, their mean, a linear layer."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.token = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.SiLU())
        self.out = nn.Linear(hidden, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) to (B, 1), high for latents that look stored."""
        logits: Tensor = self.out(self.token(tokens.float()).mean(1))
        return logits


class LatentGan:
    """The head, its optimizer (with the fake score's settings) and the stored latents.

    ``real`` has a column ``latent`` and ``prompt_row`` in its index.
    """

    def __init__(
        self,
        fake_score: SD3Transformer2DModel,
        real: TensorTable,
        embeddings: TensorTable,
        params: LatentGanParams,
        optimizer: OptimizerParams,
        updates: int,
        seed: int,
        ranks: Ranks,
    ) -> None:
        self.fake_score, self.real, self.embeddings = fake_score, real, embeddings
        self.params, self.seed, self.ranks = params, seed, ranks
        with seeded(seed):
            self.head = LatentHead(fake_score.inner_dim, params.hidden).to(ranks.device)
        self.stepper = Stepper(self.head.named_parameters(), optimizer, updates, ranks)

    def fake_score_term(
        self, fake_tokens: Tensor, sigma: Tensor, step: int, count: int, rows: slice = slice(None)
    ) -> Tensor:
        """The weighted loss of head and fake score: the student's tokens against stored latents at the same levels.

        Args:
            fake_tokens: What the fake score's output layer saw of the student's latents, (B, N, D).
            sigma: Their levels.
            step: The number of the update, for its draws.
            count: Rows of the whole batch.
            rows: Which of this rank's rows of it these are.

        Returns:
            A scalar with a gradient.
        """
        draws, share = generator(self.seed, step, "latent GAN"), self.ranks.share(count)
        drawn = torch.randint(len(self.real), (count,), generator=draws)[share][rows].numpy()
        latents = self.real.read("latent", drawn)
        noise = torch.randn((count, *latents.shape[1:]), generator=draws)[share][rows].to(sigma.device)
        prompts = read_prompts(self.embeddings, self.real.index["prompt_row"].to_numpy()[drawn], self.ranks.device)
        real = self._logits(latents.to(sigma.device), 0.0, sigma, noise, prompts)
        loss = label_smoothed_discriminator_loss([real], [self.head(fake_tokens)], real_label=1.0)
        return self.params.fake_score_weight * loss

    def student_term(self, x: Tensor, lower: Tensor, sigma: Tensor, noise: Tensor, prompts: PromptBatch) -> Tensor:
        """The student's weighted loss: low where the head takes its latents for stored ones.

        The gradient passes through the fake score; what it leaves there is to be discarded.

        Args:
            x: The student's latents, (B, C, H, W).
            lower: Their levels, (B,).
            sigma: The levels at which the head looks at them, (B,).
            noise: What takes them there, like ``x``.
            prompts: Their captions' embeddings, B rows.

        Returns:
            A scalar with a gradient.
        """
        fake = self._logits(x, lower, sigma, noise, prompts)
        return self.params.student_weight * label_smoothed_generator_loss([fake], real_label=1.0)

    def _logits(self, x: Tensor, lower: Tensor | float, sigma: Tensor, noise: Tensor, prompts: PromptBatch) -> Tensor:
        with last_features(self.fake_score) as tokens:
            predict_velocity(self.fake_score, renoise(x, lower, sigma, noise), sigma, prompts)
        logits: Tensor = self.head(tokens[0])
        return logits
