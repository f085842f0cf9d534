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
    nearer, further = (perceptual_distance([level + way * gradient], [expected]) for way in (-0.1, 0.1))
    assert nearer < before < further


def test_the_distance_of_a_place_is_that_of_its_directions():
    ours, theirs = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])  # (0.6, 0.8) and (0, 1)
    apart = torch.zeros(1, 2, 1, 2) + torch.tensor([1.0, 0.0])[:, None, None]
    levels, expected = apart.clone(), apart.clone()
    levels[0, :, 0, 0], expected[0, :, 0, 0] = ours, theirs
    assert float(perceptual_distance([levels], [expected])) == pytest.approx((0.6**2 + 0.2**2) / 2)  # of two places
