"""Stage two: adversarial refinement on the very path that inference takes, with or without the block cache.

Noise -> every step but the last without gradient -> the last step with gradient -> x0 -> decoder -> discriminator.
With a cache, the first step stores the band's residual and the later ones reuse it through the compensation, which is
trained alone first and then together with the student (paper, stage two and Distill-Cache co-training).

Shapes: B batch, K steps; latents (B, C, H, W); images RGB in [0, 1], (B, 3, H*f, W*f).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from peft import PeftModel
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.nn.functional import mse_loss

from onex_distill.engine.checkpoint import Stateful
from onex_distill.engine.job import Job
from onex_distill.engine.loop import LoopParams, train
from onex_distill.engine.optimisation import OptimizerParams, Stepper
from onex_distill.engine.randomness import generator
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.run import Run
from onex_distill.engine.weights import gather, load_transformer, place
from onex_distill.flow.conversions import euler_step
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.losses.adversarial import label_smoothed_discriminator_loss, label_smoothed_generator_loss
from onex_distill.models.block_cache import BlockCache
from onex_distill.models.cache_plan import reuse_after_first
from onex_distill.models.compensation import Compensation, CompensationParams
from onex_distill.models.discriminator import Discriminator
from onex_distill.models.lora import AdapterState, LoraParams, add_lora, merge_lora
from onex_distill.models.noise import latent_shape, noise_from_seeds
from onex_distill.models.prompts import PromptBatch, read_prompts
from onex_distill.models.sampling import decode_latents, sample_latents
from onex_distill.models.tiny import seeded
from onex_distill.models.velocity import predict_velocity
from onex_distill.parameters import Params
from onex_distill.storage.model_folder import ModelFolder, save_model
from onex_distill.storage.tensor_table import TableFolder


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


class AdversarialJob(Job):
    """Refine ``student`` on its own inference path against the images of ``references``.

    ``references`` holds ``latent``; its index ``prompt_row`` and ``noise_seed``.
    """

    student: ModelFolder
    autoencoder: ModelFolder
    recogniser: ModelFolder
    shift: float
    embeddings: TableFolder
    references: TableFolder
    params: AdversarialParams

    def run(self, run: Run) -> None:
        """Write ``student`` and ``losses.parquet``."""
        trainer = AdversarialTrainer(self, run.ranks)
        losses = train(trainer.update, trainer.states(), self.params.loop, run, trainer.describe)
        trainer.save(run.result)
        if run.ranks.is_first:
            losses.to_parquet(run.result / "losses.parquet")


class CotrainingJob(AdversarialJob):
    """Train a compensation, then compensation and student together, on the cached path; writes ``compensation`` too."""

    params: CotrainingParams


class AdversarialTrainer:
    """The networks and optimizers of one run, and its two kinds of update."""

    def __init__(self, job: AdversarialJob, ranks: Ranks) -> None:
        params = self.params = job.params
        self.job, self.ranks = job, ranks
        self.embeddings, self.references = job.embeddings.open(), job.references.open()
        self.levels = step_sigmas(params.num_inference_steps, job.shift)
        self.transformer = load_transformer(job.student)
        self.cache: BlockCache | None = None
        with seeded(params.seed):
            if isinstance(params, CotrainingParams):
                bands = (params.cached_blocks,)
                function = params.compensation_function.model_dump()
                compensation = Compensation(self.transformer.inner_dim, [bands], **function).to(ranks.device)
                plan = reuse_after_first(bands, params.num_inference_steps)
                self.cache = BlockCache(self.transformer, plan, compensation).attach()
            discriminator = Discriminator(job.recogniser.load().to(ranks.device), params.discriminator_hidden)
            self.discriminator = discriminator.to(ranks.device)
            self.adapted: PeftModel = add_lora(self.transformer, params.lora)
        place(self.transformer, ranks)
        self.autoencoder: AutoencoderKL = job.autoencoder.load().requires_grad_(False).eval().to(ranks.device)
        self._make_steppers()

    def _make_steppers(self) -> None:
        params = self.params
        generator_updates = self.generator_updates_before(params.loop.steps)
        discriminator_updates = params.loop.steps - generator_updates
        self.student_stepper = Stepper(self.adapted.parameters(), params.student, generator_updates, self.ranks)
        self.discriminator_stepper = Stepper(
            self.discriminator.parameters(), params.discriminator, discriminator_updates, self.ranks
        )
        self.compensation_stepper: Stepper | None = None
        trainable = [] if self.cache is None else list(self.cache.compensation.parameters())
        if trainable and isinstance(params, CotrainingParams):
            self.compensation_stepper = Stepper(trainable, params.compensation, generator_updates, self.ranks)

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

    def update(self, step: int) -> dict[str, float]:
        """One update of the discriminator or of the generator; this rank's part of every value."""
        batch, weight = self.draw_batch(step), self.ranks.weight(self.params.batch_size)
        if self.is_generator_update(step):
            means, norms = self.update_generator(batch, step, weight)
        else:
            means, norms = self.update_discriminator(batch, weight)
        return self.ranks.part(self.params.batch_size, means, norms)

    def rows(self, step: int) -> Tensor:
        """Rows of the reference table for one step, drawn with replacement for the whole batch."""
        draws = generator(self.params.seed, step, "stage two")
        return torch.randint(len(self.references), (self.params.batch_size,), generator=draws)

    def describe(self, step: int) -> str:
        """The seed and the rows of a step, for messages."""
        return f"seed {self.params.seed}, rows {self.rows(step).tolist()} of the reference latents"

    def draw_batch(self, step: int) -> Batch:
        """This rank's rows of one step."""
        rows = self.rows(step)[self.ranks.share(self.params.batch_size)]
        index = self.references.index.iloc[rows.numpy()]
        device = self.ranks.device
        return Batch(
            prompts=read_prompts(self.embeddings, index["prompt_row"].to_numpy(), device),
            noise=noise_from_seeds(index["noise_seed"], latent_shape(self.transformer)).to(device),
            reference=self.references.read("latent", rows).to(device),
        )

    def sample_with_gradient(self, batch: Batch) -> Tensor:
        """x0 on the inference path, with a gradient through the last step only."""
        last = len(self.levels) - 2
        with self.ranks.autocast():
            x_t = sample_latents(
                self.transformer, batch.noise, self.levels[:-1], batch.prompts, before_step=self._begin_step
            )
            self._begin_step(last)
            velocity = predict_velocity(self.transformer, x_t, float(self.levels[last]), batch.prompts)
        return euler_step(x_t, velocity, float(self.levels[last]), 0.0)

    def update_discriminator(self, batch: Batch, weight: float) -> tuple[dict[str, float], dict[str, float]]:
        """One step of the heads: reference images against the student's. Returns mean losses and gradient norms."""
        with torch.no_grad():
            fake = decode_latents(self.autoencoder, self.sample_with_gradient(batch))
            real = decode_latents(self.autoencoder, batch.reference)
        logits = self.discriminator(real), self.discriminator(fake)
        loss = label_smoothed_discriminator_loss(*logits, self.params.label_smoothing)
        norm = self.discriminator_stepper.step(loss * weight)
        return {"discriminator_loss": float(loss.detach())}, {"discriminator_grad_norm": norm}

    def update_generator(self, batch: Batch, step: int, weight: float) -> tuple[dict[str, float], dict[str, float]]:
        """One step of the student and, with a cache, of the compensation (alone during its warm-up)."""
        target = self.output_target(batch)
        x0 = self.sample_with_gradient(batch)
        adversarial = label_smoothed_generator_loss(self.discriminator(decode_latents(self.autoencoder, x0)))
        loss = self.params.adversarial_weight * adversarial
        means, norms = {"generator_loss": float(adversarial.detach())}, {}
        if isinstance(self.params, CotrainingParams) and target is not None:
            output = mse_loss(x0, target)
            loss = loss + self.params.output_weight * output
            means["output_loss"] = float(output.detach())
        (loss * weight).backward()
        self.discriminator_stepper.discard()
        if self.compensation_stepper is not None:
            norms["compensation_grad_norm"] = self.compensation_stepper.apply()
        if self._student_trains(step):
            norms["student_grad_norm"] = self.student_stepper.apply()
        else:
            self.student_stepper.discard()
        return means, norms

    @torch.no_grad()
    def output_target(self, batch: Batch) -> Tensor | None:
        """What the starting weights, without adapters and cache, make of the same noise; None if it has no weight."""
        if not isinstance(self.params, CotrainingParams) or self.params.output_weight == 0:
            return None
        if self.cache is not None:
            self.cache.reset()
        with self.adapted.disable_adapter(), self.ranks.autocast():
            return sample_latents(self.transformer, batch.noise, self.levels, batch.prompts)

    def save(self, folder: Path) -> None:
        """Merge the adapters into the starting weights and write the student, and the compensation if there is one."""
        adapters = gather(AdapterState(self.adapted).state_dict(), self.ranks)
        if not self.ranks.is_first:
            return
        fresh = add_lora(self.job.student.load(), self.params.lora)
        AdapterState(fresh).load_state_dict(adapters)
        save_model(merge_lora(fresh), folder / "student")
        if self.cache is not None:
            save_model(self.cache.compensation, folder / "compensation")

    def _begin_step(self, step: int) -> None:
        if self.cache is not None:
            self.cache.begin_step(step)

    def _student_trains(self, step: int) -> bool:
        if not isinstance(self.params, CotrainingParams):
            return True
        return self.generator_updates_before(step) >= self.params.compensation_warmup
