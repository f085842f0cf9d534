"""Stage two: adversarial refinement on the very path that inference takes, with or without the block cache.

Noise -> every step but the last without gradient -> the last step with gradient -> x0 -> decoder -> discriminator.
With a cache, the first step stores the band's residual and the later ones reuse it through the compensation, which is
trained alone first and then together with the student (paper, stage two and Distill-Cache co-training).

Shapes: B batch, K steps; latents (B, C, H, W); images RGB in [0, 1], (B, 3, H*f, W*f).
"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, Self

import torch
from diffusers import AutoencoderKL
from peft import PeftModel
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator, model_validator
from torch import Tensor
from torch.nn.functional import mse_loss

from onex_distill.cache.block_cache import BlockCache
from onex_distill.cache.compensation import Compensation, CompensationParams
from onex_distill.cache.fitting import entering_streams, residual_loss
from onex_distill.cache.plan import Bands, CachePlan, as_bands, reuse_after_first
from onex_distill.distill.stage_two.adversary import (
    AdversaryParams,
    Terms,
    build_discriminator,
    discriminator_terms,
    generator_terms,
    total,
    values,
)
from onex_distill.distill.stage_two.references import Batch, OnlineReferences, References, StoredReferences
from onex_distill.engine.checkpoint import Stateful
from onex_distill.engine.job import Job
from onex_distill.engine.loop import LoopParams, train
from onex_distill.engine.optimisation import OptimizerParams, Stepper
from onex_distill.engine.randomness import generator, seeded
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.run import Run
from onex_distill.engine.weights import gather, load_transformer, place
from onex_distill.flow.conversions import euler_step
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.lora import AdapterState, LoraParams, add_lora, merge_lora
from onex_distill.models.noise import latent_shape
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.sampling import decode_latents, sample_latents
from onex_distill.models.velocity import last_features, predict_velocity
from onex_distill.storage.model_folder import ModelFolder, save_model
from onex_distill.storage.tensor_table import TableFolder

Values = tuple[dict[str, float], dict[str, float]]  # means over this rank's rows, and what all ranks share


class AdversarialParams(AdversaryParams):
    """One adversarial run. Its steps count discriminator and generator updates together.

    ``references`` are the images decoded beforehand, or new ones made at every update. ``output_weight`` and
    ``feature_weight`` hold the last step to what the starting weights make of the same latents without a cache.
    """

    seed: int
    num_inference_steps: PositiveInt
    batch_size: PositiveInt
    lora: LoraParams
    student: OptimizerParams
    discriminator: OptimizerParams
    discriminator_warmup: NonNegativeInt
    discriminator_updates: PositiveInt
    references: Literal["stored", "online"]
    output_weight: NonNegativeFloat
    feature_weight: NonNegativeFloat
    loop: LoopParams

    @model_validator(mode="after")
    def _train_on_something(self) -> Self:
        weights = (self.adversarial_weight, self.perceptual_weight, self.output_weight, self.feature_weight)
        if not any(weights):
            raise ValueError("every weight of the generator's losses is zero; give adversarial_weight a value")
        return self


class CotrainingParams(AdversarialParams):
    """An adversarial run of the cached path; ``compensation_warmup`` counts generator updates.

    ``candidates`` are sets of bands, one of them drawn at random for every update; with one the student is specialised
    to it. An empty set runs every block. The first ``fitting_steps`` steps fit the compensation of all bands to the
    residuals that the student really adds, in batches of their own size, before the discriminator's first update; the
    paper has none of them.
    """

    candidates: tuple[Bands, ...]
    compensation_function: CompensationParams
    compensation: OptimizerParams
    compensation_warmup: NonNegativeInt
    fitting_steps: NonNegativeInt
    fitting_batch_size: PositiveInt

    @model_validator(mode="after")
    def _something_to_fit(self) -> Self:
        if self.fitting_steps and self.compensation_function.kind == "identity":
            raise ValueError(f"fitting_steps {self.fitting_steps}: compensation identity has nothing to fit; set 0")
        if self.fitting_steps and self.num_inference_steps < 2:
            raise ValueError(f"fitting_steps {self.fitting_steps}: a single step reuses nothing to fit to; set 0")
        return self

    @field_validator("candidates")
    @classmethod
    def _have_bands(cls, candidates: tuple[Bands, ...]) -> tuple[Bands, ...]:
        if not any(candidates):
            raise ValueError("candidates holds no band; give it a set of bands, for example [[1, 5]]")
        return tuple(as_bands(bands) for bands in candidates)


class AdversarialJob(Job):
    """Refine ``student`` on its own inference path against the reference generator's images.

    ``references`` holds ``image``; its index ``prompt_row`` and ``noise_seed``. Where the parameters ask for new ones,
    ``reference_generator`` makes them in ``reference_steps`` steps.
    """

    student: ModelFolder
    autoencoder: ModelFolder
    recogniser: ModelFolder
    reference_generator: ModelFolder
    reference_steps: PositiveInt
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


class Endpoint(NamedTuple):
    """The end of an inference path: x0 (B, C, H, W), and the image tokens (B, N, D) that the last step's came from."""

    x0: Tensor
    features: Tensor


class AdversarialTrainer:
    """The networks and optimizers of one run, and its two kinds of update."""

    def __init__(self, job: AdversarialJob, ranks: Ranks) -> None:
        params = self.params = job.params
        self.job, self.ranks = job, ranks
        self.fitting_steps = params.fitting_steps if isinstance(params, CotrainingParams) else 0
        self.levels = step_sigmas(params.num_inference_steps, job.shift)
        self.transformer = load_transformer(job.student)
        self.cache: BlockCache | None = None
        with seeded(params.seed):
            if isinstance(params, CotrainingParams):
                function = params.compensation_function.model_dump()
                compensation = Compensation(self.transformer.inner_dim, params.candidates, **function)
                self.cache = BlockCache(self.transformer, self.plan(0), compensation.to(ranks.device)).attach()
            self.discriminator = build_discriminator(job.recogniser, params, ranks.device)
            self.adapted: PeftModel = add_lora(self.transformer, params.lora)
        place(self.transformer, ranks)
        self.autoencoder: AutoencoderKL = job.autoencoder.load().requires_grad_(False).eval().to(ranks.device)
        self.references = self._open_references()
        self._make_steppers()

    def _open_references(self) -> References:
        job, ranks, seed = self.job, self.ranks, self.params.seed
        embeddings, shape = job.embeddings.open(), latent_shape(self.transformer)
        if self.params.references == "stored":
            return StoredReferences(job.references.open(), embeddings, shape, seed, ranks)
        levels = step_sigmas(job.reference_steps, job.shift)
        network = place(load_transformer(job.reference_generator), ranks).requires_grad_(False).eval()
        return OnlineReferences(network, self.autoencoder, levels, embeddings, shape, seed, ranks)

    def _make_steppers(self) -> None:
        params = self.params
        generator_updates = self.generator_updates_before(params.loop.steps)
        discriminator_updates = max(params.loop.steps - self.fitting_steps, 0) - generator_updates
        self.student_stepper = Stepper(self.adapted.parameters(), params.student, generator_updates, self.ranks)
        self.discriminator_stepper = Stepper(
            self.discriminator.parameters(), params.discriminator, discriminator_updates, self.ranks
        )
        self.compensation_stepper: Stepper | None = None
        trainable = [] if self.cache is None else list(self.cache.compensation.parameters())
        if trainable and isinstance(params, CotrainingParams):
            updates = min(self.fitting_steps, params.loop.steps) + generator_updates
            self.compensation_stepper = Stepper(trainable, params.compensation, updates, self.ranks)

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

    def plan(self, step: int) -> CachePlan:
        """The bands that one update reuses, the same on every rank."""
        if not isinstance(self.params, CotrainingParams):
            return reuse_after_first((), self.params.num_inference_steps)
        candidates = self.params.candidates
        draws = generator(self.params.seed, step, "bands")
        chosen = candidates[int(torch.randint(len(candidates), (), generator=draws))]
        return reuse_after_first(chosen, self.params.num_inference_steps)

    def is_generator_update(self, step: int) -> bool:
        """The discriminator alone during its warm-up, then one generator update after every few of its own.

        Without adversarial weight nobody asks the discriminator, and every update after fitting is the generator's.
        """
        after = step - self.fitting_steps
        if not self.params.adversarial_weight:
            return after >= 0
        cycle = self.params.discriminator_updates + 1
        after -= self.params.discriminator_warmup
        return after >= 0 and after % cycle == cycle - 1

    def generator_updates_before(self, step: int) -> int:
        """How many generator updates precede ``step``."""
        after = max(step - self.fitting_steps, 0)
        if not self.params.adversarial_weight:
            return after
        return max(after - self.params.discriminator_warmup, 0) // (self.params.discriminator_updates + 1)

    def update(self, step: int) -> dict[str, float]:
        """One update of the discriminator or of the generator; this rank's part of every value."""
        count = self.batch_size(step)
        batch, weight = self.references.batch(step, count), self.ranks.weight(count)
        if self.cache is not None:
            self.cache.use(self.plan(step))
        update = self.update_generator if self.is_generator_update(step) else self.update_discriminator
        if step < self.fitting_steps:
            update = self.fit_compensation
        return self.ranks.part(count, *update(batch, step, weight))

    def describe(self, step: int) -> str:
        """The seed and the rows of a step, for messages."""
        rows = self.references.rows(step, self.batch_size(step)).tolist()
        return f"seed {self.params.seed}, rows {rows} of the {self.params.references} references"

    def batch_size(self, step: int) -> int:
        """Rows of the whole batch of one step."""
        params = self.params
        if isinstance(params, CotrainingParams) and step < params.fitting_steps:
            return params.fitting_batch_size
        return params.batch_size

    def sample_before_last(self, batch: Batch) -> Tensor:
        """The latents (B, C, H, W) that the last step starts from, on the inference path, without gradient."""
        with self.ranks.autocast():
            return sample_latents(
                self.transformer, batch.noise, self.levels[:-1], batch.prompts, before_step=self._begin_step
            )

    def take_last_step(self, x_t: Tensor, prompts: PromptBatch) -> Tensor:
        """x0 as inference would make it of ``x_t``, with a gradient."""
        self._begin_step(len(self.levels) - 2)
        return self._last_step(x_t, prompts)

    def _last_step(self, x_t: Tensor, prompts: PromptBatch) -> Tensor:
        sigma = float(self.levels[-2])
        with self.ranks.autocast():
            velocity = predict_velocity(self.transformer, x_t, sigma, prompts)
        return euler_step(x_t, velocity, sigma, 0.0)

    def fit_compensation(self, batch: Batch, step: int, weight: float) -> Values:
        """One step of the compensation of all bands towards the residuals of plain sampling, from new noise."""
        if self.cache is None or self.compensation_stepper is None:
            raise RuntimeError("there is no compensation to fit")
        self.cache.reset()
        noise = self._noise_like(batch.noise, step, "fitting noise")
        with torch.no_grad(), self.ranks.autocast(), entering_streams(self.transformer) as streams:
            sample_latents(self.transformer, noise, self.levels, batch.prompts)
        with self.ranks.autocast():
            loss = residual_loss(self.cache.compensation, streams, self.levels)
        norm = self.compensation_stepper.step(loss * weight)
        return {"residual_loss": float(loss.detach())}, {"compensation_grad_norm": norm}

    def update_discriminator(self, batch: Batch, step: int, weight: float) -> Values:
        """One step of the heads: reference images against the student's. Returns mean losses and gradient norms."""
        with torch.no_grad():
            x0 = self.take_last_step(self.sample_before_last(batch), batch.prompts)
            fake = decode_latents(self.autoencoder, x0)
        real = self.references.images(batch)
        noise = partial(self._noise_like, real, step, "penalty noise")
        terms = discriminator_terms(self.discriminator, real, fake, self.params, noise)
        norm = self.discriminator_stepper.step(total(terms) * weight)
        return values(terms), {"discriminator_grad_norm": norm}

    def update_generator(self, batch: Batch, step: int, weight: float) -> Values:
        """One step of the student and, with a cache, of the compensation (alone during its warm-up)."""
        terms = self.generator_terms(batch)
        (total(terms) * weight).backward()
        norms = {}
        self.discriminator_stepper.discard()
        if self.compensation_stepper is not None:
            norms["compensation_grad_norm"] = self.compensation_stepper.apply()
        if self._student_trains(step):
            norms["student_grad_norm"] = self.student_stepper.apply()
        else:
            self.student_stepper.discard()
        return values(terms), norms

    def generator_terms(self, batch: Batch) -> Terms:
        """What the generator loses on a batch; terms without weight are not computed."""
        params = self.params
        x_t = self.sample_before_last(batch)
        target = self.target(x_t, batch.prompts) if params.output_weight or params.feature_weight else None
        nothing: AbstractContextManager[list[Tensor]] = nullcontext([])
        with last_features(self.transformer) if params.feature_weight else nothing as features:
            x0 = self.take_last_step(x_t, batch.prompts)
        terms = Terms()
        if params.adversarial_weight or params.perceptual_weight:
            images = decode_latents(self.autoencoder, x0)
            terms = generator_terms(self.discriminator, images, partial(self.references.images, batch), params)
        if params.output_weight and target is not None:
            terms["output_loss"] = (params.output_weight, mse_loss(x0, target.x0))
        if params.feature_weight and target is not None:
            terms["feature_loss"] = (params.feature_weight, mse_loss(features[-1].float(), target.features.float()))
        return terms

    @torch.no_grad()
    def target(self, x_t: Tensor, prompts: PromptBatch) -> Endpoint:
        """Where the starting weights, without adapters and cache, take the same latents in the last step."""
        uncached = nullcontext() if self.cache is None else self.cache.during(None)
        with uncached, self.adapted.disable_adapter(), last_features(self.transformer) as features:
            x0 = self._last_step(x_t, prompts)
        return Endpoint(x0, features[-1])

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

    def _noise_like(self, tensor: Tensor, step: int, purpose: str) -> Tensor:
        """This rank's rows of noise that is drawn for the whole batch."""
        count, draws = self.batch_size(step), generator(self.params.seed, step, purpose)
        noise = torch.randn((count, *tensor.shape[1:]), generator=draws)
        return noise[self.ranks.share(count)].to(tensor.device)

    def _student_trains(self, step: int) -> bool:
        if not isinstance(self.params, CotrainingParams):
            return True
        return self.generator_updates_before(step) >= self.params.compensation_warmup
