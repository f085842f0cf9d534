"""Parameters of an adversarial run."""

from typing import Literal, Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from onex_distill.distill.stage_two.adversary import AdversaryParams
from onex_distill.distill.stage_two.schedule import Schedule
from onex_distill.engine.loop import LoopParams
from onex_distill.engine.optimisation import OptimizerParams
from onex_distill.models.lora import LoraParams
from onex_distill.models.sampling import Precision
from onex_distill.parameters import Seed


class AdversarialParams(AdversaryParams):
    """One adversarial run. Its steps count discriminator and generator updates together.

    ``batch_size`` counts the rows of one update over all ranks, ``micro_batch_size`` those that a rank works on at once
    (none: all of its own). ``gradient_checkpointing`` recomputes the forwards of the student, the decoder and the
    backbone in the backward pass; ``decoder_precision`` is that of the decoder's weights and arithmetic. ``references``
    are the images decoded beforehand, or new ones made at every update. ``output_weight`` and ``feature_weight`` hold
    the last step to what the starting weights make of the same latents without a cache.
    """

    seed: Seed
    num_inference_steps: PositiveInt
    batch_size: PositiveInt
    micro_batch_size: PositiveInt | None
    gradient_checkpointing: bool
    decoder_precision: Precision
    lora: LoraParams
    student: OptimizerParams
    discriminator: OptimizerParams
    discriminator_warmup: NonNegativeInt
    discriminator_updates: PositiveInt
    references: Literal["stored", "online"]
    output_weight: NonNegativeFloat
    feature_weight: NonNegativeFloat
    loop: LoopParams

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The rows of every kind of update."""
        return (self.batch_size,)

    @property
    def schedule(self) -> Schedule:
        """Without adversarial weight nobody asks the discriminator, and every step is the generator's."""
        return Schedule(
            steps=self.loop.steps,
            discriminator_warmup=self.discriminator_warmup,
            discriminator_updates=self.discriminator_updates if self.adversarial_weight else 0,
        )

    @model_validator(mode="after")
    def _train_on_something(self) -> Self:
        weights = (self.adversarial_weight, self.perceptual_weight, self.output_weight, self.feature_weight)
        if not any(weights):
            raise ValueError("every weight of the generator's losses is zero; give adversarial_weight a value")
        return self
