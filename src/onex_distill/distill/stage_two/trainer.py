"""Stage two: adversarial refinement on the very path that inference takes (paper, section on stage two).

Noise -> every step but the last without gradient -> the last step with gradient -> x0 -> decoder -> discriminator.

Shapes: B batch, K steps; latents (B, C, H, W); images RGB, nominally in [0, 1], (B, 3, H*f, W*f).
"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers import AutoencoderKL
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import mse_loss

from onex_distill.distill.stage_two.adversary import (
    Terms,
    build_judges,
    discriminator_terms,
    generator_terms,
    total,
    values,
)
from onex_distill.distill.stage_two.backbones import TimmBackbone
from onex_distill.distill.stage_two.path import Endpoint, InferencePath
from onex_distill.distill.stage_two.references import Batch, OnlineReferences, References, StoredReferences
from onex_distill.distill.stage_two.schedule import Phase
from onex_distill.engine.accumulation import Backward, accumulate
from onex_distill.engine.checkpoint import Stateful
from onex_distill.engine.optimisation import Stepper
from onex_distill.engine.randomness import generator, seeded
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.weights import frozen_dtype, gather, load_transformer, place
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.lora import AdapterState, add_lora, merge_lora
from onex_distill.models.noise import latent_shape
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.sampling import DTYPES, decode_latents
from onex_distill.models.velocity import last_features
from onex_distill.storage.model_folder import save_model

if TYPE_CHECKING:
    from onex_distill.distill.stage_two.job import AdversarialJob

Means = dict[str, float]  # over this rank's rows
Values = tuple[Means, dict[str, float]]  # means, and what all ranks share


class AdversarialTrainer:
    """The networks and optimizers of one run, and its two kinds of update.

    Networks that no weight asks for are not built: ``judges`` may lack either part, and ``autoencoder`` may be None.
    """

    def __init__(self, job: "AdversarialJob", ranks: Ranks) -> None:
        params = self.params = job.params
        self.job, self.ranks, self.schedule = job, ranks, params.schedule
        self.transformer = load_transformer(job.student)
        with seeded(params.seed):
            self.path = self.build_path()
            self.judges = build_judges(job.recogniser, params, ranks.device)
            self.adapted: PeftModel = add_lora(self.transformer, params.lora)
        place(self.transformer, ranks, frozen_dtype(ranks))
        self.autoencoder = self._load_autoencoder()
        if params.gradient_checkpointing:
            self._checkpoint_gradients()
        self.references = self._open_references()
        self.make_steppers()

    def build_path(self) -> InferencePath:
        """The way from noise to x0 that is trained."""
        return InferencePath(self.transformer, step_sigmas(self.params.num_inference_steps, self.job.shift), self.ranks)

    def _load_autoencoder(self) -> AutoencoderKL | None:
        if not self.params.sees_images:
            return None
        dtype = DTYPES[self.params.decoder_precision]
        autoencoder: AutoencoderKL = self.job.autoencoder.load(torch_dtype=dtype)
        return autoencoder.requires_grad_(False).eval().to(self.ranks.device)

    def _checkpoint_gradients(self) -> None:
        self.transformer.enable_gradient_checkpointing()
        if self.autoencoder is not None:
            self.autoencoder.enable_gradient_checkpointing()
        if isinstance(self.judges.backbone, TimmBackbone):
            self.judges.backbone.enable_gradient_checkpointing()

    def _open_references(self) -> References:
        job, ranks, seed = self.job, self.ranks, self.params.seed
        embeddings, shape = job.embeddings.open(), latent_shape(self.transformer)
        if self.params.references == "stored":
            return StoredReferences(job.references.open(), embeddings, shape, seed, ranks)
        network = None
        if self.params.sees_images:
            frozen = load_transformer(job.reference_generator).requires_grad_(False).eval()
            network = place(frozen, ranks, frozen_dtype(ranks))
        levels = step_sigmas(job.reference_steps, job.shift)
        return OnlineReferences(network, self.autoencoder, levels, embeddings, shape, seed, ranks)

    def make_steppers(self) -> None:
        """The optimizers, with as many updates as the schedule has for each."""
        params, counts = self.params, self.schedule.counts
        updates = counts[Phase.GENERATOR]
        self.student_stepper = Stepper(self.adapted.named_parameters(), params.student, updates, self.ranks)
        self.discriminator_stepper: Stepper | None = None
        if self.judges.discriminator is not None:
            self.discriminator_stepper = Stepper(
                self.judges.discriminator.named_parameters(),
                params.discriminator,
                counts[Phase.DISCRIMINATOR],
                self.ranks,
            )

    def states(self) -> dict[str, Stateful]:
        """Everything that a checkpoint has to hold."""
        states: dict[str, Stateful] = {
            "student": AdapterState(self.adapted),
            "student_stepper": self.student_stepper,
        }
        if self.judges.discriminator is not None and self.discriminator_stepper is not None:
            states["discriminator"] = self.judges.discriminator
            states["discriminator_stepper"] = self.discriminator_stepper
        return states

    def batch_size(self, step: int) -> int:
        """Rows of the whole batch of one step."""
        return self.params.batch_size

    def describe(self, step: int) -> str:
        """The seed and the rows of a step, for messages."""
        rows = self.references.rows(step, self.batch_size(step)).tolist()
        return f"seed {self.params.seed}, rows {rows} of the {self.params.references} references"

    def update(self, step: int) -> dict[str, float]:
        """One update of the phase that the step belongs to; this rank's part of every value."""
        count = self.batch_size(step)
        values = self.update_phase(self.schedule.phase(step), self.references.batch(step, count), step)
        return self.ranks.part(count, *values)

    def update_phase(self, phase: Phase, batch: Batch, step: int) -> Values:
        """One update of a phase on this rank's rows."""
        if phase is Phase.DISCRIMINATOR:
            return self.update_discriminator(batch, step)
        return self.update_generator(phase, batch, step)

    def in_parts(self, step: int, backward: Backward) -> Means:
        """The backward passes of one update, in micro-batches."""
        return accumulate(backward, self.batch_size(step), self.params.micro_batch_size, self.ranks)

    def update_discriminator(self, batch: Batch, step: int) -> Values:
        """One step of the heads: reference images against the student's. Returns mean losses and gradient norms."""
        discriminator, stepper = self.judges.discriminator, self.discriminator_stepper
        if discriminator is None or stepper is None:
            raise RuntimeError("there is no discriminator to train")
        discriminator.refine_norms()

        def backward(rows: slice, weight: float) -> Means:
            part = batch.part(rows)
            with torch.no_grad():
                fake = self._decode(self.path.sample(part.noise, part.prompts))
            real = self.references.images(part)
            noise = partial(self.noise_like, real, step, "penalty noise", rows)
            terms = discriminator_terms(discriminator, real, fake, self.params, noise)
            (total(terms) * weight).backward()
            return values(terms)

        return self.in_parts(step, backward), {"discriminator_grad_norm": stepper.apply()}

    def update_generator(self, phase: Phase, batch: Batch, step: int) -> Values:
        """One step with the generator's losses, of whatever the phase trains."""

        def backward(rows: slice, weight: float) -> Means:
            terms = self.generator_terms(batch.part(rows))
            (total(terms) * weight).backward()
            return values(terms)

        means = self.in_parts(step, backward)
        if self.discriminator_stepper is not None:
            self.discriminator_stepper.discard()
        return means, self.apply_generator(phase)

    def apply_generator(self, phase: Phase) -> dict[str, float]:
        """Step what the phase trains with the gradients that are there; gradient norms."""
        return {"student_grad_norm": self.student_stepper.apply(self.student_rests)}

    def student_rests(self, name: str) -> bool:
        """Whether the last step, the one with a gradient, leaves a parameter of the student out."""
        return False

    def generator_terms(self, batch: Batch) -> Terms:
        """What the generator loses on a batch; terms without weight are not computed."""
        params = self.params
        x_t = self.path.before_last(batch.noise, batch.prompts)
        target = self.target(x_t, batch.prompts) if params.output_weight or params.feature_weight else None
        nothing: AbstractContextManager[list[Tensor]] = nullcontext([])
        with last_features(self.transformer) if params.feature_weight else nothing as features:
            x0 = self.path.last_step(x_t, batch.prompts)
        terms = Terms()
        if params.sees_images:
            terms = generator_terms(self.judges, self._decode(x0), partial(self.references.images, batch), params)
        if params.output_weight and target is not None:
            terms["output_loss"] = (params.output_weight, mse_loss(x0, target.x0))
        if params.feature_weight and target is not None:
            terms["feature_loss"] = (params.feature_weight, mse_loss(features[-1].float(), target.features.float()))
        return terms

    def target(self, x_t: Tensor, prompts: PromptBatch) -> Endpoint:
        """Where the starting weights, without adapters and cache, take the same latents in the last step."""
        with self.adapted.disable_adapter():
            return self.path.plain_last_step(x_t, prompts)

    def save(self, folder: Path) -> None:
        """Merge the adapters into the starting weights and write the student."""
        adapters = gather(AdapterState(self.adapted).state_dict(), self.ranks)
        if self.ranks.is_first:
            fresh = add_lora(self.job.student.load(), self.params.lora)
            AdapterState(fresh).load_state_dict(adapters)
            save_model(merge_lora(fresh), folder / "student")

    def noise_like(self, tensor: Tensor, step: int, purpose: str, rows: slice) -> Tensor:
        """Noise for some of this rank's rows, as drawn for the whole batch.

        Args:
            tensor: Gives shape, type and device; its first dimension is the number of ``rows``.
            step: The number of the update.
            purpose: The name of what the noise is for; each has draws of its own.
            rows: Which of this rank's rows.

        Returns:
            Standard normal noise like ``tensor``.
        """
        count, draws = self.batch_size(step), generator(self.params.seed, step, purpose)
        noise = torch.randn((count, *tensor.shape[1:]), generator=draws)
        return noise[self.ranks.share(count)][rows].to(tensor)

    def _decode(self, x0: Tensor) -> Tensor:
        if self.autoencoder is None:
            raise RuntimeError("no weight asks for images, so that there is no decoder")
        return decode_latents(self.autoencoder, x0)
