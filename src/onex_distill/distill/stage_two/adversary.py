"""What the discriminator and the generator lose to each other: named losses, and terms of no weight left out.

Shapes: B batch; images RGB, nominally in [0, 1] and never clamped, (B, 3, H, W).
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from onex_distill.distill.stage_two.backbones import BackboneParams, load_backbone
from onex_distill.distill.stage_two.discriminator import Discriminator, FeatureNetwork, frozen
from onex_distill.losses.adversarial import (
    LossName,
    approximate_gradient_penalty,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
)
from onex_distill.losses.perceptual import perceptual_distance
from onex_distill.parameters import Params
from onex_distill.storage.model_folder import ModelFolder

Terms = dict[str, tuple[float, Tensor]]  # weight and value by name


class PenaltyParams(Params):
    """Weights of penalties on the discriminator's gradient: at real images, at fake ones, and at real ones without a
    second backward pass, by a finite difference of ``noise_std``.
    """

    r1: NonNegativeFloat
    r2: NonNegativeFloat
    approximate_r1: NonNegativeFloat
    noise_std: PositiveFloat


class AdversaryParams(Params):
    """The discriminator, its loss, and the weights of what it tells the generator.

    ``label_smoothing`` is the label of real images, to which the published loss holds generated ones as well.
    """

    backbone: BackboneParams
    discriminator_hidden: PositiveInt
    adversarial_loss: LossName
    label_smoothing: float = Field(ge=0, le=1)
    penalties: PenaltyParams
    adversarial_weight: NonNegativeFloat
    perceptual_weight: NonNegativeFloat

    @property
    def sees_images(self) -> bool:
        """Whether any weight asks for decoded images."""
        return self.adversarial_weight > 0 or self.perceptual_weight > 0


class Judges(NamedTuple):
    """What looks at images: a frozen backbone for the perceptual loss, and a discriminator on the same one."""

    backbone: FeatureNetwork | None
    discriminator: Discriminator | None


def build_judges(recogniser: ModelFolder, params: AdversaryParams, device: torch.device) -> Judges:
    """Fresh heads on the backbone that the parameters name; what no weight asks for is not built."""
    if not params.adversarial_weight and not params.perceptual_weight:
        return Judges(None, None)
    backbone = frozen(load_backbone(params.backbone, recogniser).to(device))
    if not params.adversarial_weight:
        return Judges(backbone, None)
    return Judges(backbone, Discriminator(backbone, params.discriminator_hidden).to(device))


def discriminator_terms(
    discriminator: Discriminator, real: Tensor, fake: Tensor, params: AdversaryParams, noise: Callable[[], Tensor]
) -> Terms:
    """The discriminator's loss and penalties.

    Args:
        discriminator: The network that learns.
        real: Reference images, (B, 3, H, W).
        fake: The generator's images, of the same shape, without gradient.
        params: The loss, its smoothing and the weights of the penalties.
        noise: Draws a standard normal tensor like ``real``; called for the approximate penalty alone.

    Returns:
        Weight and value by name; a penalty without weight is left out.
    """
    penalties = params.penalties
    real, fake = real.requires_grad_(penalties.r1 > 0), fake.requires_grad_(penalties.r2 > 0)
    on_real, on_fake = discriminator(real), discriminator(fake)
    loss = discriminator_loss(params.adversarial_loss, on_real, on_fake, params.label_smoothing)
    terms: Terms = {"discriminator_loss": (1.0, loss)}
    if penalties.r1 > 0:
        terms["r1_penalty"] = (penalties.r1, gradient_penalty(on_real, real))
    if penalties.r2 > 0:
        terms["r2_penalty"] = (penalties.r2, gradient_penalty(on_fake, fake))
    if penalties.approximate_r1 > 0:
        noisy = discriminator(real + penalties.noise_std * noise())
        penalty = approximate_gradient_penalty(on_real, noisy, penalties.noise_std)
        terms["approximate_r1_penalty"] = (penalties.approximate_r1, penalty)
    return terms


def generator_terms(judges: Judges, fake: Tensor, reference: Callable[[], Tensor], params: AdversaryParams) -> Terms:
    """The generator's terms on its images.

    Args:
        judges: The discriminator and the backbone, where a weight needs them.
        fake: The generator's images, (B, 3, H, W), with their gradient.
        reference: Makes their counterparts; called once, if a term needs them.
        params: The losses and their weights.

    Returns:
        Weight and value by name; a term without weight is left out.
    """
    reference, terms = cache(reference), Terms()
    if params.adversarial_weight > 0 and judges.discriminator is not None:
        on_real = None
        if params.adversarial_loss == "relativistic":
            with torch.no_grad():
                on_real = judges.discriminator(reference())
        on_fake = judges.discriminator(fake)
        loss = generator_loss(params.adversarial_loss, on_fake, params.label_smoothing, on_real)
        terms["generator_loss"] = (params.adversarial_weight, loss)
    if params.perceptual_weight > 0 and judges.backbone is not None:
        with torch.no_grad():
            expected = judges.backbone.levels_and_features(reference())[0]
        distance = perceptual_distance(judges.backbone.levels_and_features(fake)[0], expected)
        terms["perceptual_loss"] = (params.perceptual_weight, distance)
    return terms


def total(terms: Terms) -> Tensor:
    """The weighted sum, a scalar."""
    return torch.stack([weight * value for weight, value in terms.values()]).sum()


def values(terms: Terms) -> dict[str, float]:
    """Every term before its weight."""
    return {name: float(value.detach()) for name, (_, value) in terms.items()}
