import pytest
import torch

from onex_distill.losses.perceptual import perceptual_distance


def test_equal_features_have_no_distance_whatever_their_length():
    level = torch.randn(2, 4, 3, 3)
    assert float(perceptual_distance([level], [5 * level])) == pytest.approx(0, abs=1e-6)


def test_opposite_features_are_two_apart_and_levels_add_up():
    level = torch.randn(2, 4, 3, 3)
    assert float(perceptual_distance([level], [-level])) == pytest.approx(4, rel=1e-5)
    assert float(perceptual_distance([level, level], [-level, level])) == pytest.approx(4, rel=1e-5)


def test_the_gradient_turns_features_towards_the_expected_ones():
    level, expected = torch.randn(2, 4, 3, 3, requires_grad=True), torch.randn(2, 4, 3, 3)
    before = perceptual_distance([level], [expected])
    (gradient,) = torch.autograd.grad(before, level)
    assert perceptual_distance([level - 0.1 * gradient], [expected]) < before
