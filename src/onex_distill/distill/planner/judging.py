"""What the discriminator and its frozen backbone need, at the size of the images that they see.

Shapes: images RGB, (B, 3, H, W).
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from onex_distill.distill.planner.counting import Activations, count, without_contents
from onex_distill.distill.planner.networks import weights
from onex_distill.distill.stage_two.backbones import BackboneParams, TimmBackbone, build_backbone
from onex_distill.distill.stage_two.discriminator import Discriminator, frozen
from onex_distill.storage.model_folder import ModelFolder


class Judging(NamedTuple):
    """Weights of the frozen backbone and of the trained heads; activations of telling a generator's images with a
    gradient to them, and of telling as many real images and fake ones with a gradient to the heads.
    """

    backbone: int
    heads: int
    generator: Activations
    discriminator: Activations


@lru_cache(maxsize=32)
def judging(
    params: BackboneParams,
    hidden: int,
    recogniser: ModelFolder,
    images: tuple[int, int, int, int],
    checkpointing: bool,
) -> Judging:
    """What judging images of a shape needs.

    Args:
        params: The backbone.
        hidden: Width of the heads.
        recogniser: The backbone that the parameters may name.
        images: Shape of the images of one kind.
        checkpointing: Whether the backbone's forward runs again in the backward pass.

    Returns:
        Weights and activations.

    Raises:
        ValueError: For an unknown backbone.
    """
    with torch.device("meta"):
        backbone = build_backbone(params, recogniser)
        discriminator = Discriminator(frozen(backbone), hidden)
    if checkpointing and isinstance(backbone, TimmBackbone):
        backbone.enable_gradient_checkpointing()
    with without_contents(backbone, discriminator):
        whole = nn.ModuleList([backbone, discriminator])
        fake, real = torch.empty(images, requires_grad=True), torch.empty(images)
        heads = weights(discriminator)
        discriminating = count(whole, (fake, real), lambda: _logits(discriminator, real, real.clone()), bf16=False)
        discriminator.requires_grad_(False)
        generating = count(whole, (fake, real), lambda: _logits(discriminator, fake), bf16=False)
    return Judging(weights(backbone), heads, generating, discriminating)


def _logits(discriminator: nn.Module, *images: Tensor) -> Tensor:
    return torch.cat([logits.flatten() for image in images for logits in discriminator(image)])
