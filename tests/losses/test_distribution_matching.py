import math

import pytest
import torch

from onex_distill.losses.distribution_matching import (
    WEIGHT_FLOOR,
    distribution_matching_loss,
    pseudo_huber,
    pseudo_huber_constant,
    sample_weight,
)

SHAPE = (3, 4, 5, 6)


def latents(seed=0):
    """x, x_real and x_fake in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, *SHAPE, generator=generator, dtype=torch.float64)


def gradient_of(x, x_real, x_fake):
    leaf = x.clone().requires_grad_()
    distribution_matching_loss(leaf, x_real, x_fake).backward()
    return leaf.grad


def loss_by_hand(x, x_real, x_fake):
    """The formula sample by sample, in plain numbers."""
    c = 1e-3 * math.sqrt(x[0].numel() / (64 * 64 * 4))
    losses = []
    for a, real, fake in zip(x, x_real, x_fake, strict=True):
        weight = 1 / (a - real).abs().mean().item()
        losses.append(weight * (((fake - real) ** 2 + c**2).sqrt() - c).mean().item())
    return sum(losses) / len(losses)


def test_the_pseudo_huber_constant_is_the_published_one():
    assert pseudo_huber_constant(64 * 64 * 4) == pytest.approx(1e-3)
    assert pseudo_huber_constant(128 * 128 * 16) == pytest.approx(4e-3)
    assert pseudo_huber_constant(8 * 8 * 8) == pytest.approx(1e-3 * math.sqrt(512 / 16384))


def test_pseudo_huber_closed_forms():
    c = 0.5
    differences = torch.tensor([0.0, c * math.sqrt(3), -c * math.sqrt(3), c * math.sqrt(8)], dtype=torch.float64)
    expected = torch.tensor([0.0, c, c, 2 * c], dtype=torch.float64)
    torch.testing.assert_close(pseudo_huber(differences, c), expected)


def test_pseudo_huber_is_square_near_zero_and_absolute_far_away():
    c = 1.0
    assert pseudo_huber(torch.tensor(1e-3, dtype=torch.float64), c).item() == pytest.approx(0.5e-6, rel=1e-5)
    assert pseudo_huber(torch.tensor(1e6, dtype=torch.float64), c).item() == pytest.approx(1e6 - c, rel=1e-9)


def test_the_loss_is_its_formula():
    tensors = latents()
    assert distribution_matching_loss(*tensors).item() == pytest.approx(loss_by_hand(*tensors), rel=1e-9)


def test_equal_scores_give_no_loss_and_no_gradient():
    x, x_real, _ = latents()
    assert distribution_matching_loss(x, x_real, x_real.clone()).item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(gradient_of(x, x_real, x_real.clone()), torch.zeros_like(x), rtol=0, atol=1e-11)


def test_the_gradient_has_the_sign_of_fake_minus_real_everywhere():
    x, x_real, x_fake = latents()
    assert torch.equal(gradient_of(x, x_real, x_fake).sign(), (x_fake - x_real).sign())


def test_swapping_the_scores_far_from_x_turns_the_gradient_round():
    x, x_real, x_fake = latents()
    ahead = gradient_of(x, x_real, x_fake)
    behind = gradient_of(x, x_fake, x_real)
    assert torch.equal(ahead.sign(), -behind.sign())


def test_descent_moves_x_from_the_fake_towards_the_real_score():
    x, x_real, _ = latents()
    x_fake = x_real + 2.0
    assert (gradient_of(x, x_real, x_fake) > 0).all()  # fake lies above real, so x has to go down


def test_small_differences_give_a_gradient_proportional_to_them():
    x, x_real, direction = latents()
    c = pseudo_huber_constant(x[0].numel())
    x_fake = x_real + 1e-3 * c * direction
    weight = 1 / (x - x_real).abs().mean((1, 2, 3), keepdim=True)
    expected = weight * (x_fake - x_real) / c / x.numel()
    torch.testing.assert_close(gradient_of(x, x_real, x_fake), expected, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_weight_of_a_sample_averages_over_channels_height_and_width(dim):
    x_real = torch.zeros(1, *SHAPE[1:], dtype=torch.float64)
    size = SHAPE[dim]
    profile = torch.arange(1, size + 1, dtype=torch.float64).reshape([size if d == dim else 1 for d in range(4)])
    x = profile.expand_as(x_real)
    gradient = gradient_of(x, x_real, x_real + 1.0)
    # the same difference everywhere: one weight per sample means one gradient, however |x - x_real| varies inside
    torch.testing.assert_close(gradient, gradient[:1, :1, :1, :1].expand_as(gradient), rtol=1e-12, atol=0)
    assert gradient[0, 0, 0, 0].item() * x.numel() == pytest.approx(1 / profile.mean().item(), rel=1e-6)


def test_every_sample_has_its_own_weight():
    x_real = torch.zeros(2, 4, 5, 6, dtype=torch.float64)
    x = torch.stack([torch.full_like(x_real[0], 1.0), torch.full_like(x_real[0], 10.0)])
    gradient = gradient_of(x, x_real, x_real + 1.0)
    torch.testing.assert_close(gradient[0], 10 * gradient[1])


def test_the_loss_of_a_batch_is_the_mean_of_its_samples():
    x, x_real, x_fake = latents()
    alone = [distribution_matching_loss(x[i : i + 1], x_real[i : i + 1], x_fake[i : i + 1]) for i in range(len(x))]
    torch.testing.assert_close(distribution_matching_loss(x, x_real, x_fake), torch.stack(alone).mean())


def test_the_floor_keeps_the_loss_finite_when_x_is_the_real_score():
    x_real = torch.zeros(1, *SHAPE[1:], dtype=torch.float64)
    c = pseudo_huber_constant(x_real[0].numel())
    loss = distribution_matching_loss(x_real.clone(), x_real, x_real + 1.0)
    assert loss.item() == pytest.approx((math.sqrt(1 + c**2) - c) / WEIGHT_FLOOR)
    assert gradient_of(x_real, x_real, x_real + 1.0).isfinite().all()


def test_all_equal_in_float32_is_zero_and_not_nan():
    x = torch.ones(SHAPE)
    assert distribution_matching_loss(x, x.clone(), x.clone()).item() == 0
    assert torch.equal(gradient_of(x, x.clone(), x.clone()), torch.zeros(SHAPE))


def test_only_x_receives_a_gradient():
    x, x_real, x_fake = (tensor.clone().requires_grad_() for tensor in latents())
    distribution_matching_loss(x, x_real, x_fake).backward()
    assert x.grad.abs().sum() > 0
    assert x_real.grad is None
    assert x_fake.grad is None


def test_no_gradient_flows_through_the_weight():
    x, x_real, _ = latents()
    # far away the penalty is |d|, so with a constant weight a uniform difference has a uniform gradient
    gradient = gradient_of(x[:1], x_real[:1], x_real[:1] + 5.0)
    torch.testing.assert_close(gradient, gradient.mean().expand_as(gradient), rtol=1e-6, atol=0)


def test_the_weight_is_one_number_a_sample():
    x_real = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    x = torch.stack([torch.full_like(x_real[0], -4.0), torch.zeros_like(x_real[0])])
    weight = sample_weight(x.requires_grad_(), x_real)
    assert weight.shape == (2, 1, 1, 1)
    assert weight.flatten().tolist() == pytest.approx([0.25, 1 / WEIGHT_FLOOR])
    assert not weight.requires_grad
