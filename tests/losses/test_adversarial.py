import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from onex_distill.losses.adversarial import (
    approximate_gradient_penalty,
    gradient_penalty,
    hinge_discriminator_loss,
    hinge_generator_loss,
    relativistic_loss,
    scores,
)
from onex_distill.losses.adversarial import discriminator_loss as named_discriminator_loss
from onex_distill.losses.adversarial import generator_loss as named_generator_loss
from onex_distill.losses.adversarial import label_smoothed_discriminator_loss as discriminator_loss
from onex_distill.losses.adversarial import label_smoothed_generator_loss as generator_loss

SOFT = 0.8


def logits(seed, *widths):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, width, generator=generator, dtype=torch.float64) for width in widths]


def leaves(levels):
    return [level.clone().requires_grad_() for level in levels]


def constant(*values):
    return [torch.full((2, 3), value, dtype=torch.float64) for value in values]


@pytest.mark.parametrize("label", [1.0, SOFT])
def test_an_undecided_discriminator_loses_log_two_a_side(label):
    assert discriminator_loss(constant(0.0), constant(0.0), label).item() == pytest.approx(2 * math.log(2))
    assert generator_loss(constant(0.0), label).item() == pytest.approx(math.log(2))


def test_the_discriminator_loss_is_cross_entropy_with_a_soft_real_label():
    real, fake = logits(0, 7, 2), logits(1, 7, 2)
    by_level = [
        binary_cross_entropy_with_logits(r, torch.full_like(r, SOFT))
        + binary_cross_entropy_with_logits(f, torch.zeros_like(f))
        for r, f in zip(real, fake, strict=True)
    ]
    torch.testing.assert_close(discriminator_loss(real, fake, SOFT), torch.stack(by_level).sum())


@pytest.mark.parametrize("label", [1.0, SOFT])
def test_the_generator_loss_is_cross_entropy_against_the_real_label(label):
    fake = logits(2, 5, 9)
    by_level = [binary_cross_entropy_with_logits(level, torch.full_like(level, label)) for level in fake]
    torch.testing.assert_close(generator_loss(fake, label), torch.stack(by_level).sum())


def test_the_published_generator_is_pulled_back_from_too_much_confidence():
    """At logit 2 the gradient is sigmoid(2) - 0.8 = +0.081; against the hard label it is -0.119."""
    for label, expected in ((0.8, 0.0807971), (1.0, -0.1192029)):
        fake = leaves([torch.tensor([[2.0]], dtype=torch.float64)])
        named_generator_loss("label_smoothed", fake, label).backward()
        assert fake[0].grad.item() == pytest.approx(expected, abs=1e-7)


def test_levels_add_up_whatever_their_size():
    fake = [torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 100), 50.0, dtype=torch.float64)]
    assert generator_loss(fake, 1.0).item() == pytest.approx(math.log(2))
    assert discriminator_loss(fake, fake, 1.0).item() == pytest.approx(2 * math.log(2) + 50)


def test_the_discriminator_raises_real_and_lowers_fake_logits():
    real, fake = leaves(logits(3, 6)), leaves(logits(4, 6))
    discriminator_loss(real, fake, 1.0).backward()
    assert (real[0].grad < 0).all()
    assert (fake[0].grad > 0).all()


def test_the_generator_raises_its_logits_and_learns_most_where_it_is_caught():
    fake = leaves([torch.tensor([[-6.0, 0.0, 6.0]], dtype=torch.float64)])
    generator_loss(fake, 1.0).backward()
    gradient = fake[0].grad[0]
    assert (gradient < 0).all()
    assert (gradient.abs().diff() < 0).all()
    assert gradient[1].item() == pytest.approx(-0.5 / 3)


def test_label_smoothing_is_content_at_its_own_confidence():
    content = math.log(SOFT / (1 - SOFT))
    real = leaves([torch.tensor([[content - 1, content, content + 1]], dtype=torch.float64)])
    discriminator_loss(real, [torch.zeros(1, 3, dtype=torch.float64)], SOFT).backward()
    below, at, above = real[0].grad[0].tolist()
    assert below < 0 < above
    assert at == pytest.approx(0, abs=1e-12)


def test_the_fake_side_is_not_smoothed():
    fake = constant(2.0)
    soft, hard = (discriminator_loss(constant(0.0), fake, label) for label in (SOFT, 1.0))
    torch.testing.assert_close(soft, hard)


def test_extreme_logits_stay_finite():
    far = [torch.tensor([[-1e4, 1e4]])]
    assert discriminator_loss(far, far, SOFT).isfinite()
    assert generator_loss(far, SOFT).isfinite()


def test_every_real_level_needs_its_fake_one():
    with pytest.raises(ValueError, match="zip"):
        discriminator_loss(constant(0.0, 1.0), constant(0.0), SOFT)


def test_hinge_closed_form():
    real, fake = constant(0.25, 3.0), constant(-0.5, -2.0)
    assert hinge_discriminator_loss(real, fake).item() == pytest.approx((0.75 + 0.5) + (0.0 + 0.0))
    assert hinge_generator_loss(fake).item() == pytest.approx(0.5 + 2.0)


def test_hinge_leaves_confident_logits_alone():
    real, fake = leaves([torch.tensor([[0.9, 1.1]])]), leaves([torch.tensor([[-0.9, -1.1]])])
    hinge_discriminator_loss(real, fake).backward()
    assert real[0].grad.tolist() == [[-0.5, 0.0]]
    assert fake[0].grad.tolist() == [[0.5, 0.0]]


def test_the_hinge_generator_learns_alike_everywhere():
    fake = leaves([torch.tensor([[-6.0, 0.0, 6.0, 1.0]])])
    hinge_generator_loss(fake).backward()
    assert fake[0].grad.tolist() == [[-0.25] * 4]


def test_relativistic_closed_form():
    real, fake = logits(5, 4, 3), logits(6, 4, 3)
    by_level = [binary_cross_entropy_with_logits(r - f, torch.ones_like(r)) for r, f in zip(real, fake, strict=True)]
    torch.testing.assert_close(relativistic_loss(real, fake), torch.stack(by_level).sum())
    assert relativistic_loss(real, real).item() == pytest.approx(2 * math.log(2))


def test_relativistic_pairs_are_rows():
    real, fake = logits(5, 4), logits(6, 4)
    order = torch.tensor([2, 0, 3, 1])
    paired = relativistic_loss(real, fake)
    torch.testing.assert_close(relativistic_loss([real[0][order]], [fake[0][order]]), paired)
    assert not torch.allclose(relativistic_loss(real, [fake[0][order]]), paired)


def test_relativistic_sees_differences_only():
    real, fake = logits(5, 4), logits(6, 4)
    shifted = relativistic_loss([real[0] + 7], [fake[0] + 7])
    torch.testing.assert_close(shifted, relativistic_loss(real, fake))


def test_both_sides_of_the_relativistic_loss_pull_against_each_other():
    real, fake = leaves(logits(5, 4)), leaves(logits(6, 4))
    named_discriminator_loss("relativistic", real, fake, SOFT).backward()
    assert (real[0].grad < 0).all()
    torch.testing.assert_close(real[0].grad, -fake[0].grad)
    chasing = leaves(logits(6, 4))
    named_generator_loss("relativistic", chasing, SOFT, logits(5, 4)).backward()
    assert (chasing[0].grad < 0).all()


def test_losses_by_name():
    real, fake = logits(5, 4, 2), logits(6, 4, 2)
    discriminators = {
        "label_smoothed": discriminator_loss(real, fake, SOFT),
        "hinge": hinge_discriminator_loss(real, fake),
        "relativistic": relativistic_loss(real, fake),
    }
    generators = {
        "label_smoothed": generator_loss(fake, SOFT),
        "hinge": hinge_generator_loss(fake),
        "relativistic": relativistic_loss(fake, real),
    }
    for name in discriminators:
        assert torch.equal(named_discriminator_loss(name, real, fake, SOFT), discriminators[name])
        assert torch.equal(named_generator_loss(name, fake, SOFT, real), generators[name])


def test_the_relativistic_generator_needs_its_pairs():
    with pytest.raises(ValueError, match="needs real logits, got None"):
        named_generator_loss("relativistic", logits(6, 4), SOFT)


WEIGHTS = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def linear_logits(images):
    """Two levels whose mean score is <WEIGHTS, image>."""
    value = (images * WEIGHTS).flatten(1).sum(1, keepdim=True)
    return [value.expand(-1, 5) + torch.linspace(-1, 1, 5, dtype=torch.float64), value]


def images_with_gradient(count=3):
    draws = torch.Generator().manual_seed(8)
    return torch.randn(count, 3, 4, 4, generator=draws, dtype=torch.float64).requires_grad_()


def test_scores_are_one_a_sample_and_levels_count_alike():
    levels = [torch.tensor([[1.0, 3.0], [0.0, 2.0]]), torch.tensor([[4.0], [7.0]])]
    assert scores(levels).tolist() == [3.0, 4.0]


def test_the_gradient_penalty_of_a_linear_discriminator():
    images = images_with_gradient()
    penalty = gradient_penalty(linear_logits(images), images)
    torch.testing.assert_close(penalty, WEIGHTS.square().sum() / 2)


def test_the_gradient_penalty_of_a_quadratic_discriminator_trains_it():
    images, factor = images_with_gradient(), torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    penalty = gradient_penalty([factor * images.square().flatten(1).sum(1, keepdim=True) / 2], images)
    squares = images.detach().square().flatten(1).sum(1).mean()
    torch.testing.assert_close(penalty.detach(), factor.detach() ** 2 * squares / 2)
    penalty.backward()
    torch.testing.assert_close(factor.grad, factor.detach() * squares)


def test_the_finite_difference_agrees_with_the_gradient_in_expectation():
    images = images_with_gradient(1).detach().expand(40000, -1, -1, -1)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    penalty = approximate_gradient_penalty(linear_logits(images), linear_logits(images + 0.01 * noise), 0.01)
    torch.testing.assert_close(penalty, WEIGHTS.square().sum() / 2, rtol=0.03, atol=0)


def test_the_finite_difference_trains_the_discriminator():
    factor = torch.tensor(2.0, requires_grad=True)
    clean, noisy = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.5], [1.0]])
    penalty = approximate_gradient_penalty([factor * clean], [factor * noisy], 0.5)
    assert penalty.item() == pytest.approx((4 * (1 + 4) / 2) / 2)
    penalty.backward()
    assert factor.grad.item() == pytest.approx(2 * (1 + 4) / 2)


def test_a_finite_difference_needs_noise():
    with pytest.raises(ValueError, match="noise_std must be above 0, got 0"):
        approximate_gradient_penalty(constant(1.0), constant(1.0), 0)
