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
from onex_distill.distill.stage_two.path import Endpoint, InferencePath
from onex_distill.distill.stage_two.references import Batch, OnlineReferences, References, StoredReferences
from onex_distill.distill.stage_two.schedule import Phase
from onex_distill.engine.checkpoint import Stateful
from onex_distill.engine.optimisation import Stepper
from onex_distill.engine.randomness import generator, seeded
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.weights import gather, load_transformer, place
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.lora import AdapterState, add_lora, merge_lora
from onex_distill.models.noise import latent_shape
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.sampling import decode_latents
from onex_distill.models.velocity import last_features
from onex_distill.storage.model_folder import save_model

if TYPE_CHECKING:
    from onex_distill.distill.stage_two.job import AdversarialJob

Values = tuple[dict[str, float], dict[str, float]]  # means over this rank's rows, and what all ranks share


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
        place(self.transformer, ranks)
        self.autoencoder = self._load_autoencoder()
        self.references = self._open_references()
        self.make_steppers()

    def build_path(self) -> InferencePath:
        """The way from noise to x0 that is trained."""
        return InferencePath(self.transformer, step_sigmas(self.params.num_inference_steps, self.job.shift), self.ranks)

    def _load_autoencoder(self) -> AutoencoderKL | None:
        if not self.params.sees_images:
            return None
        autoencoder: AutoencoderKL = self.job.autoencoder.load()
        return autoencoder.requires_grad_(False).eval().to(self.ranks.device)

    def _open_references(self) -> References:
        job, ranks, seed = self.job, self.ranks, self.params.seed
        embeddings, shape = job.embeddings.open(), latent_shape(self.transformer)
        if self.params.references == "stored":
            return StoredReferences(job.references.open(), embeddings, shape, seed, ranks)
        network = None
        if self.params.sees_images:
            network = place(load_transformer(job.reference_generator), ranks).requires_grad_(False).eval()
        levels = step_sigmas(job.reference_steps, job.shift)
        return OnlineReferences(network, self.autoencoder, levels, embeddings, shape, seed, ranks)

    def make_steppers(self) -> None:
        """The optimizers, with as many updates as the schedule has for each."""
        params, counts = self.params, self.schedule.counts
        updates = counts[Phase.WARM_UP] + counts[Phase.GENERATOR]
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
        batch, weight = self.references.batch(step, count), self.ranks.weight(count)
        return self.ranks.part(count, *self.update_phase(self.schedule.phase(step), batch, step, weight))

    def update_phase(self, phase: Phase, batch: Batch, step: int, weight: float) -> Values:
        """One update of a phase on this rank's rows, which have this weight in the mean over ranks."""
        if phase is Phase.DISCRIMINATOR:
            return self.update_discriminator(batch, step, weight)
        return self.update_generator(phase, batch, weight)

    def update_discriminator(self, batch: Batch, step: int, weight: float) -> Values:
        """One step of the heads: reference images against the student's. Returns mean losses and gradient norms."""
        if self.judges.discriminator is None or self.discriminator_stepper is None:
            raise RuntimeError("there is no discriminator to train")
        self.judges.discriminator.refine_norms()
        with torch.no_grad():
            fake = self._decode(self.path.sample(batch.noise, batch.prompts))
        real = self.references.images(batch)
        noise = partial(self.noise_like, real, step, "penalty noise")
        terms = discriminator_terms(self.judges.discriminator, real, fake, self.params, noise)
        norm = self.discriminator_stepper.step(total(terms) * weight)
        return values(terms), {"discriminator_grad_norm": norm}

    def update_generator(self, phase: Phase, batch: Batch, weight: float) -> Values:
        """One step with the generator's losses, of whatever the phase trains."""
        terms = self.generator_terms(batch)
        (total(terms) * weight).backward()
        if self.discriminator_stepper is not None:
            self.discriminator_stepper.discard()
        return values(terms), self.apply_generator(phase)

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

    def noise_like(self, tensor: Tensor, step: int, purpose: str) -> Tensor:
        """This rank's rows of noise that is drawn for the whole batch."""
        count, draws = self.batch_size(step), generator(self.params.seed, step, purpose)
        noise = torch.randn((count, *tensor.shape[1:]), generator=draws)
        return noise[self.ranks.share(count)].to(tensor.device)

    def _decode(self, x0: Tensor) -> Tensor:
        if self.autoencoder is None:
            raise RuntimeError("no weight asks for images, so that there is no decoder")
        return decode_latents(self.autoencoder, x0)
