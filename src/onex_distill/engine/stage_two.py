"""Stage two: adversarial refinement on the very path that inference takes, with or without the block cache.

Noise -> every step but the last without gradient -> the last step with gradient -> x0 -> decoder -> discriminator.
With a cache, the first step stores the band's residual and the later ones reuse it through the compensation, which is
trained alone first and then together with the student (paper, stage two and Distill-Cache co-training).

Shapes: B batch, K steps; latents (B, C, H, W); images RGB in [0, 1], (B, 3, H*f, W*f).
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from peft import PeftModel
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.nn.functional import mse_loss

from onex_distill.engine.checkpoint import Stateful, fingerprint_of, index_fingerprint, module_fingerprint
from onex_distill.engine.loop import LoopParams, train
from onex_distill.engine.optimisation import OptimizerParams, Stepper
from onex_distill.engine.randomness import generator
from onex_distill.flow.conversions import euler_step
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.losses.adversarial import label_smoothed_discriminator_loss, label_smoothed_generator_loss
from onex_distill.models.block_cache import BlockCache
from onex_distill.models.compensation import CompensationParams
from onex_distill.models.discriminator import Discriminator
from onex_distill.models.lora import AdapterState, LoraParams, add_lora, merge_lora
from onex_distill.models.noise import noise_from_seeds
from onex_distill.models.prompts import PromptBatch, read_prompts
from onex_distill.models.sampling import decode_latents, sample_latents
from onex_distill.models.velocity import predict_velocity
from onex_distill.parameters import Params
from onex_distill.storage.tensor_table import TensorTable


class AdversarialParams(Params):
    """One adversarial run. Its steps count discriminator and generator updates together."""

    seed: int
    num_inference_steps: PositiveInt
    batch_size: PositiveInt
    lora: LoraParams
    student: OptimizerParams
    discriminator: OptimizerParams
    discriminator_hidden: PositiveInt
    discriminator_warmup: NonNegativeInt
    discriminator_updates: PositiveInt
    label_smoothing: float = Field(ge=0, le=1)
    adversarial_weight: NonNegativeFloat
    loop: LoopParams


class CotrainingParams(AdversarialParams):
    """An adversarial run of the cached path; ``compensation_warmup`` counts generator updates."""

    cached_blocks: tuple[int, int]
    compensation_function: CompensationParams
    compensation: OptimizerParams
    compensation_warmup: NonNegativeInt
    output_weight: NonNegativeFloat


@dataclass
class Batch:
    """Rows of the reference table: their prompts, their noise, and the reference generator's latents."""

    prompts: PromptBatch
    noise: Tensor
    reference: Tensor


class AdversarialTrainer:
    """The networks and optimizers of one run, and its two kinds of update."""

    def __init__(
        self,
        student: SD3Transformer2DModel,
        autoencoder: AutoencoderKL,
        discriminator: Discriminator,
        shift: float,
        params: AdversarialParams,
        cache: BlockCache | None = None,
    ) -> None:
        self.params = params
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        self.discriminator = discriminator
        self.transformer = student
        self.adapted: PeftModel = add_lora(student, params.lora)
        self.cache = cache
        self.levels = step_sigmas(params.num_inference_steps, shift)
        generator_updates = self.generator_updates_before(params.loop.steps)
        discriminator_updates = params.loop.steps - generator_updates
        self.student_stepper = Stepper(self.adapted.parameters(), params.student, generator_updates)
        self.discriminator_stepper = Stepper(discriminator.parameters(), params.discriminator, discriminator_updates)
        self.compensation_stepper: Stepper | None = None
        trainable = [] if cache is None else list(cache.compensation.parameters())
        if trainable and isinstance(params, CotrainingParams):
            self.compensation_stepper = Stepper(trainable, params.compensation, generator_updates)

    def states(self) -> dict[str, Stateful]:
        """Everything that a checkpoint has to hold."""
        states: dict[str, Stateful] = {
            "student": AdapterState(self.adapted),
            "discriminator": self.discriminator,
            "student_stepper": self.student_stepper,
            "discriminator_stepper": self.discriminator_stepper,
        }
        if self.cache is not None and self.compensation_stepper is not None:
            states |= {"compensation": self.cache.compensation, "compensation_stepper": self.compensation_stepper}
        return states

    def is_generator_update(self, step: int) -> bool:
        """The discriminator alone during its warm-up, then one generator update after every few of its own."""
        cycle = self.params.discriminator_updates + 1
        after = step - self.params.discriminator_warmup
        return after >= 0 and after % cycle == cycle - 1

    def generator_updates_before(self, step: int) -> int:
        """How many generator updates precede ``step``."""
        return max(step - self.params.discriminator_warmup, 0) // (self.params.discriminator_updates + 1)

    def sample_with_gradient(self, batch: Batch) -> Tensor:
        """x0 on the inference path, with a gradient through the last step only."""
        last = len(self.levels) - 2
        x_t = sample_latents(
            self.transformer, batch.noise, self.levels[:-1], batch.prompts, before_step=self._begin_step
        )
        self._begin_step(last)
        velocity = predict_velocity(self.transformer, x_t, float(self.levels[last]), batch.prompts)
        return euler_step(x_t, velocity, float(self.levels[last]), 0.0)

    def update_discriminator(self, batch: Batch) -> dict[str, float]:
        """One step of the heads: reference images against the student's."""
        with torch.no_grad():
            fake = decode_latents(self.autoencoder, self.sample_with_gradient(batch))
            real = decode_latents(self.autoencoder, batch.reference)
        logits = self.discriminator(real), self.discriminator(fake)
        loss = label_smoothed_discriminator_loss(*logits, self.params.label_smoothing)
        self.discriminator_stepper.step(loss)
        return {"discriminator_loss": float(loss.detach())}

    def update_generator(self, batch: Batch, step: int) -> dict[str, float]:
        """One step of the student and, with a cache, of the compensation (alone during its warm-up)."""
        target = self.output_target(batch)
        x0 = self.sample_with_gradient(batch)
        adversarial = label_smoothed_generator_loss(self.discriminator(decode_latents(self.autoencoder, x0)))
        loss = self.params.adversarial_weight * adversarial
        values = {"generator_loss": float(adversarial.detach())}
        if isinstance(self.params, CotrainingParams) and target is not None:
            output = mse_loss(x0, target)
            loss = loss + self.params.output_weight * output
            values["output_loss"] = float(output.detach())
        loss.backward()
        self.discriminator_stepper.discard()
        if self.compensation_stepper is not None:
            values["compensation_grad_norm"] = self.compensation_stepper.apply()
        if self._student_trains(step):
            values["student_grad_norm"] = self.student_stepper.apply()
        else:
            self.student_stepper.discard()
        return values

    @torch.no_grad()
    def output_target(self, batch: Batch) -> Tensor | None:
        """What the starting weights, without adapters and cache, make of the same noise; None if it has no weight."""
        if not isinstance(self.params, CotrainingParams) or self.params.output_weight == 0:
            return None
        if self.cache is not None:
            self.cache.reset()
        with self.adapted.disable_adapter():
            return sample_latents(self.transformer, batch.noise, self.levels, batch.prompts)

    def finish(self) -> SD3Transformer2DModel:
        """Detach the cache and merge the adapters."""
        if self.cache is not None:
            self.cache.detach()
        return merge_lora(self.adapted).requires_grad_(False).eval()

    def _begin_step(self, step: int) -> None:
        if self.cache is not None:
            self.cache.begin_step(step)

    def _student_trains(self, step: int) -> bool:
        if not isinstance(self.params, CotrainingParams):
            return True
        return self.generator_updates_before(step) >= self.params.compensation_warmup


def train_adversarially(
    trainer: AdversarialTrainer, prompts: TensorTable, references: TensorTable, run_dir: Path
) -> tuple[SD3Transformer2DModel, pd.DataFrame]:
    """Run stage two on ``references`` (``latent``; index ``prompt_row``, ``noise_seed``); returns the student."""
    params = trainer.params
    start = module_fingerprint(trainer.transformer)

    def update(step: int) -> dict[str, float]:
        batch = draw_batch(trainer.transformer, prompts, references, params, step)
        if trainer.is_generator_update(step):
            return trainer.update_generator(batch, step)
        return trainer.update_discriminator(batch)

    rows = index_fingerprint(references.index, ["prompt_row", "noise_seed"])
    fingerprint = fingerprint_of(params.model_dump(), start, rows)
    history = train(update, trainer.states(), params.loop, run_dir, fingerprint)
    return trainer.finish(), history


def draw_batch(
    transformer: SD3Transformer2DModel,
    prompts: TensorTable,
    references: TensorTable,
    params: AdversarialParams,
    step: int,
) -> Batch:
    """Rows of the reference table for one step, drawn with replacement."""
    draws = generator(params.seed, step, "stage two")
    rows = torch.randint(len(references), (params.batch_size,), generator=draws)
    index = references.index.iloc[rows.numpy()]
    return Batch(
        prompts=read_prompts(prompts, index["prompt_row"].to_numpy()),
        noise=noise_from_seeds(index["noise_seed"], transformer),
        reference=references.read("latent", rows),
    )
