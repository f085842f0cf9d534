import pytest
import torch
from torch.nn.utils.parametrize import is_parametrized

from onex_distill.distill.stage_two.discriminator import BlurPool, Discriminator, frozen
from onex_distill.engine.randomness import seeded
from onex_distill.shapes.networks import ShapesReader


@pytest.fixture
def recogniser() -> ShapesReader:
    with seeded(0):
        return ShapesReader(channels=(8, 16), feature_dim=8)


@pytest.fixture
def discriminator(recogniser) -> Discriminator:
    with seeded(1):
        return Discriminator(frozen(recogniser), hidden=4)


def test_one_row_of_logits_a_level_and_one_pooled(discriminator):
    logits = discriminator(torch.rand(3, 3, 32, 32))
    assert [tuple(level.shape) for level in logits] == [(3, 256), (3, 64), (3, 1)]


def test_images_do_not_influence_each_other(discriminator):
    discriminator.eval()
    images = torch.rand(3, 3, 32, 32)
    for together, alone in zip(discriminator(images), discriminator(images[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_the_backbone_is_frozen_and_no_part_of_the_state(discriminator, recogniser):
    assert not recogniser.training
    assert not any(parameter.requires_grad for parameter in recogniser.parameters())
    assert not {id(p) for p in recogniser.parameters()} & {id(p) for p in discriminator.parameters()}
    before = {name: tensor.clone() for name, tensor in recogniser.state_dict().items()}
    torch.stack([level.mean() for level in discriminator(torch.rand(2, 3, 32, 32))]).sum().backward()
    discriminator.train()
    assert not recogniser.training
    assert all(parameter.grad is None for parameter in recogniser.parameters())
    assert all(parameter.grad is not None for parameter in discriminator.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in recogniser.state_dict().items())


def test_the_state_alone_restores_the_logits(discriminator, recogniser):
    images = torch.rand(2, 3, 32, 32)
    other = Discriminator(frozen(recogniser), hidden=4)
    assert not torch.equal(other.eval()(images)[0], discriminator.eval()(images)[0])
    other.load_state_dict(discriminator.state_dict())
    for a, b in zip(other(images), discriminator(images), strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
def test_refining_brings_every_layer_to_a_spectral_norm_of_one(discriminator):
    layers = [layer for layer in discriminator.modules() if is_parametrized(layer)]
    for layer in layers:
        layer.parametrizations.weight.original.mul_(3)
    for _ in range(100):
        discriminator.refine_norms()
    norms = [float(torch.linalg.matrix_norm(layer.weight.flatten(1), 2)) for layer in layers]
    assert norms == pytest.approx([1.0] * 6, rel=1e-2)


def test_gradient_reaches_the_images_through_every_level(discriminator):
    for level in range(3):
        images = torch.rand(1, 3, 32, 32, requires_grad=True)
        discriminator(images)[level].sum().backward()
        assert images.grad.abs().sum() > 0


def test_blurring_preserves_a_constant():
    blurred = BlurPool(2)(torch.full((1, 2, 8, 8), 0.7))
    torch.testing.assert_close(blurred, torch.full((1, 2, 4, 4), 0.7))


def test_blurring_removes_the_finest_stripes():
    stripes = torch.tensor([0.0, 1.0]).repeat(4).expand(1, 1, 8, 8)
    torch.testing.assert_close(BlurPool(1)(stripes), torch.full((1, 1, 4, 4), 0.5))
