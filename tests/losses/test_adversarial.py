import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from onex_distill.losses.adversarial import discriminator_loss, generator_loss

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
    assert generator_loss(constant(0.0)).item() == pytest.approx(math.log(2))


def test_the_discriminator_loss_is_cross_entropy_with_a_soft_real_label():
    real, fake = logits(0, 7, 2), logits(1, 7, 2)
    by_level = [
        binary_cross_entropy_with_logits(r, torch.full_like(r, SOFT))
        + binary_cross_entropy_with_logits(f, torch.zeros_like(f))
        for r, f in zip(real, fake, strict=True)
    ]
    torch.testing.assert_close(discriminator_loss(real, fake, SOFT), torch.stack(by_level).mean())


def test_the_generator_loss_is_cross_entropy_against_one():
    fake = logits(2, 5, 9)
    by_level = [binary_cross_entropy_with_logits(level, torch.ones_like(level)) for level in fake]
    torch.testing.assert_close(generator_loss(fake), torch.stack(by_level).mean())


def test_levels_count_alike_whatever_their_size():
    fake = [torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 100), 50.0, dtype=torch.float64)]
    assert generator_loss(fake).item() == pytest.approx(math.log(2) / 2)
    assert discriminator_loss(fake, fake, 1.0).item() == pytest.approx((2 * math.log(2) + 50) / 2)


def test_the_discriminator_raises_real_and_lowers_fake_logits():
    real, fake = leaves(logits(3, 6)), leaves(logits(4, 6))
    discriminator_loss(real, fake, 1.0).backward()
    assert (real[0].grad < 0).all()
    assert (fake[0].grad > 0).all()


def test_the_generator_raises_its_logits_and_learns_most_where_it_is_caught():
    fake = leaves([torch.tensor([[-6.0, 0.0, 6.0]], dtype=torch.float64)])
    generator_loss(fake).backward()
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
    assert generator_loss(far).isfinite()


def test_every_real_level_needs_its_fake_one():
    with pytest.raises(ValueError, match="zip"):
        discriminator_loss(constant(0.0, 1.0), constant(0.0), SOFT)
