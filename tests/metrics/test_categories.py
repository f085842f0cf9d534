import math

import pytest
import torch

from onex_distill.metrics.categories import conditional_entropy, conditional_histogram, total_variation

PARENTS = torch.tensor([0, 0, 0, 0, 2, 2])
VALUES = torch.tensor([0, 1, 0, 1, 2, 2])


def test_histograms_are_of_each_parent():
    assert conditional_histogram(VALUES, PARENTS, 3).tolist() == [[0.5, 0.5, 0], [0, 0, 0], [0, 0, 1]]


def test_entropy_weighs_parents_by_their_images():
    assert conditional_entropy(VALUES, PARENTS, 3) == pytest.approx(4 / 6 * math.log(2))


def test_total_variation_is_the_mean_over_parents():
    expected = torch.tensor([[1.0, 0, 0]] * 4 + [[0, 0, 1.0]] * 2)
    assert total_variation(VALUES, PARENTS, expected) == pytest.approx((0.5 + 0) / 2)
