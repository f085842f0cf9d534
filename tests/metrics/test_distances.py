import math

import pytest
import torch

from onex_distill.metrics.distances import diversity, frechet_distance
from onex_distill.metrics.manifolds import precision_recall
from onex_distill.shapes.features import FeatureExtractor, extract_features
from onex_distill.shapes.networks import ShapesReader


def gaussian(seed, count=500, dim=4):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.fixture(scope="module")
def evaluator():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ShapesReader(channels=(8, 8, 8), feature_dim=5)


def test_a_set_is_at_no_frechet_distance_from_itself():
    features = gaussian(0)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-8)


def test_a_shift_costs_its_squared_length():
    features, shift = gaussian(0), torch.tensor([1.0, -2.0, 0.0, 0.5])
    assert frechet_distance(features + shift, features) == pytest.approx(1 + 4 + 0.25, rel=1e-6)


def test_a_scale_costs_the_trace_of_the_covariance():
    features = gaussian(1) - gaussian(1).mean(0)
    # tr(S) + tr(4 S) - 2 tr(2 S) = tr(S)
    assert frechet_distance(2 * features, features) == pytest.approx(features.T.cov().trace().item(), rel=1e-6)


def test_the_frechet_distance_is_symmetric_and_ignores_order():
    first, second = gaussian(2), 1.5 * gaussian(3) + 0.3
    distance = frechet_distance(first, second)
    assert frechet_distance(second, first) == pytest.approx(distance, rel=1e-6)
    assert frechet_distance(first.flip(0), second) == pytest.approx(distance, rel=1e-6)


def test_diversity_of_a_pair_is_its_distance():
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert diversity(features, torch.tensor([7, 7])) == pytest.approx(5)


def test_diversity_averages_pairs_inside_and_captions_outside():
    features = column(0, 1, 3, 100, 110)
    groups = torch.tensor([0, 0, 0, 1, 1])
    assert diversity(features, groups) == pytest.approx(((1 + 2 + 3) / 3 + 10) / 2)


def test_diversity_does_not_depend_on_the_order_and_skips_single_images():
    features, groups = column(0, 500, 4, -900), torch.tensor([2, 5, 2, 9])
    assert diversity(features, groups) == pytest.approx(4)


def test_copies_have_no_diversity():
    assert diversity(torch.ones(6, 3), torch.tensor([0, 0, 0, 1, 1, 1])) == 0


def test_diversity_needs_two_images_of_one_caption():
    with pytest.raises(ValueError, match="raise images_per_caption"):
        diversity(torch.ones(3, 2), torch.tensor([0, 1, 2]))


def test_equal_sets_are_fully_precise_and_recalled():
    features = gaussian(4, 60)
    assert precision_recall(features, features.clone(), 3) == (1.0, 1.0)


def test_sets_far_apart_share_nothing():
    assert precision_recall(gaussian(5, 30), gaussian(6, 30) + 1000, 3) == (0.0, 0.0)


def test_precision_and_recall_of_points_on_a_line():
    # reference radii are 1, so only 0.5 is inside; the radius of 0.5 is 9.5, which reaches the whole reference
    precision, recall = precision_recall(column(0.5, 10, 11), column(0, 1, 2, 3), 1)
    assert precision == pytest.approx(1 / 3)
    assert recall == pytest.approx(1)


def test_a_collapsed_set_keeps_its_precision_and_loses_recall():
    reference = column(0, 1, 2, 3, 10, 11, 12, 13)
    collapsed = column(1, 1.1, 1.2, 1.3)
    assert precision_recall(collapsed, reference, 1) == (1.0, pytest.approx(1 / 8))


def test_more_neighbours_widen_the_manifold():
    features, reference = column(4.5, 20), column(0, 1, 2, 3)
    assert precision_recall(features, reference, 1)[0] == 0
    assert precision_recall(column(4.5, 20, 21), reference, 2)[0] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("generated", "real"), [(3, 10), (10, 3)])
def test_precision_and_recall_need_more_images_than_neighbours(generated, real):
    with pytest.raises(ValueError, match="with 3 neighbours needs at least 4 images"):
        precision_recall(gaussian(0, generated), gaussian(1, real), 3)


def test_features_of_pixels_are_the_evaluators_own(evaluator):
    pixels = torch.randint(256, (5, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        expected = evaluator.features(pixels / 255)
    torch.testing.assert_close(FeatureExtractor(evaluator)(pixels), expected)
    torch.testing.assert_close(extract_features(evaluator, pixels), expected)


def test_features_do_not_depend_on_the_batch_size(evaluator):
    pixels = torch.randint(256, (5, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    whole, split = (extract_features(evaluator, pixels, batch_size) for batch_size in (256, 2))
    torch.testing.assert_close(whole, split)


def test_extracted_features_feed_the_distance(evaluator):
    pixels = torch.randint(256, (40, 3, 32, 32), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    features = extract_features(evaluator, pixels)
    distance = frechet_distance(features, features + 1)
    assert math.sqrt(distance) == pytest.approx(math.sqrt(5), rel=1e-3)


def test_too_few_images_for_a_distance_are_named():
    features = 1000 * torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"of 16 and 16 images with 64 features cannot be computed; measure more"):
        frechet_distance(features, features)
