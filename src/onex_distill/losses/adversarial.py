"""Adversarial losses over several feature levels, by name, and penalties on the discriminator's gradient.

Every loss is the sum over levels of the mean over a level's logits, so that levels count alike whatever their size.

Shapes: B batch; every level's logits are (B, M_i); images (B, C, H, W).
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, relu, softplus

Logits = Sequence[Tensor]
LossName = Literal["label_smoothed", "hinge", "relativistic"]


def discriminator_loss(name: LossName, real: Logits, fake: Logits, real_label: float) -> Tensor:
    """The discriminator's side of the named loss, a scalar.

    Args:
        name: Of the loss.
        real: Logits of real images.
        fake: Logits of generated ones.
        real_label: What ``label_smoothed`` takes for real; the others do not read it.

    Returns:
        A scalar.
    """
    match name:
        case "label_smoothed":
            return label_smoothed_discriminator_loss(real, fake, real_label)
        case "hinge":
            return hinge_discriminator_loss(real, fake)
        case "relativistic":
            return relativistic_loss(winner=real, loser=fake)


def generator_loss(name: LossName, fake: Logits, real_label: float, real: Logits | None = None) -> Tensor:
    """The generator's side of the named loss.

    Args:
        name: Of the loss.
        fake: Logits of generated images.
        real_label: What ``label_smoothed`` takes for real; the others do not read it.
        real: Logits of the real images of the same rows, for ``relativistic``.

    Returns:
        A scalar.

    Raises:
        ValueError: ``relativistic`` without ``real``.
    """
    match name:
        case "label_smoothed":
            return label_smoothed_generator_loss(fake, real_label)
        case "hinge":
            return hinge_generator_loss(fake)
        case "relativistic":
            if real is None:
                raise ValueError("the relativistic generator loss needs real logits, got None; pass those of its pairs")
            return relativistic_loss(winner=fake, loser=real)


def label_smoothed_discriminator_loss(real: Logits, fake: Logits, real_label: float) -> Tensor:
    """Cross entropy of real against a soft label and of fake against 0 (vision-aided GAN; Kumari et al., 2022).

    ``real_label`` is in [0, 1]: published 0.8; 1 is the hard label. A scalar.
    """
    return _sum_over_levels(
        _cross_entropy(r, real_label) + _cross_entropy(f, 0.0) for r, f in zip(real, fake, strict=True)
    )


def label_smoothed_generator_loss(fake: Logits, real_label: float) -> Tensor:
    """Cross entropy of fake against the discriminator's label of real (published: 0.8 as well). A scalar.

    The gradient of a logit z is sigmoid(z) - real_label: a generator is held to the confidence that real images have.
    With the hard label 1 it is the non-saturating loss (Goodfellow et al., 2014).
    """
    return _sum_over_levels(_cross_entropy(level, real_label) for level in fake)


def hinge_discriminator_loss(real: Logits, fake: Logits) -> Tensor:
    """max(0, 1 - D(real)) + max(0, 1 + D(fake)) (Lim and Ye, 2017, eq. 10)."""
    return _sum_over_levels(relu(1 - r).mean() + relu(1 + f).mean() for r, f in zip(real, fake, strict=True))


def hinge_generator_loss(fake: Logits) -> Tensor:
    """-D(fake) (Lim and Ye, 2017)."""
    return _sum_over_levels(-level.mean() for level in fake)


def relativistic_loss(winner: Logits, loser: Logits) -> Tensor:
    """-log sigmoid(D(winner) - D(loser)) of pairs (relativistic GAN; Jolicoeur-Martineau, 2018, eq. 7 and 8).

    Row i of both sides is one pair: here, images of the same prompt and noise. For the discriminator the real image
    should win, for the generator the fake one.
    """
    return _sum_over_levels(softplus(lo - w).mean() for w, lo in zip(winner, loser, strict=True))


def scores(logits: Logits) -> Tensor:
    """One number per image, (B,): the mean over levels of the mean logit; what the penalties differentiate."""
    return torch.stack([level.mean(1) for level in logits]).mean(0)


def gradient_penalty(logits: Logits, images: Tensor) -> Tensor:
    """E |grad D|^2 / 2 at the images (Mescheder et al., 2018, eq. 9 and 10): R1 at real images, R2 at fake ones.

    ``logits`` were computed from ``images``, which require a gradient. A scalar that can be differentiated again.
    """
    gradient = torch.autograd.grad(scores(logits).sum(), images, create_graph=True)[0]
    return gradient.square().flatten(1).sum(1).mean() / 2


def approximate_gradient_penalty(logits: Logits, noisy: Logits, noise_std: float) -> Tensor:
    """The same penalty by a finite difference, without a second backward pass (Lin et al., 2025, approximated R1).

    ``noisy`` are the logits of the same images with Gaussian noise of ``noise_std`` added. Dividing by its variance
    makes the expectation |grad D|^2 / 2 for small noise, so that weights compare with those of ``gradient_penalty``.
    Raises ValueError for noise that is not positive.
    """
    if noise_std <= 0:
        raise ValueError(f"noise_std must be above 0, got {noise_std}; 0.01 is a start")
    return ((scores(noisy) - scores(logits)) / noise_std).square().mean() / 2


def _cross_entropy(logits: Tensor, label: float) -> Tensor:
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _sum_over_levels(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()
