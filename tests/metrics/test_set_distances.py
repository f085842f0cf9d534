"""Distances between sets, against closed forms and against other implementations."""

import math

import numpy as np
import pytest
import torch
from cleanfid.fid import kernel_distance
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import mmd2
from torch_fidelity.metric_prc import prc_features_to_metric
from torchmetrics.image.kid import poly_mmd

from onex_distill.metrics.distances import frechet_distance
from onex_distill.metrics.frechet import frechet_at_infinity, trace_frechet_distance
from onex_distill.metrics.kernels import cmmd, kid, kid_subsets
from onex_distill.metrics.manifolds import density_coverage, precision_recall
from onex_distill.metrics.vendi import vendi_score


def gaussian(seed, count=500, dim=4, scale=1.0):
    return scale * torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("dim", [3, 40, 150])
def test_the_trace_form_is_clean_fids_distance(dim):
    mix = gaussian(9, dim, dim)
    features, reference = gaussian(0, 400, dim) @ mix + 0.3, gaussian(1, 500, dim)
    assert trace_frechet_distance(features, reference) == pytest.approx(frechet_distance(features, reference), rel=1e-9)


def test_the_trace_form_is_torch_fidelitys_distance():
    features, reference = gaussian(0, 300, 30).float() + 0.2, 1.3 * gaussian(1, 400, 30).float()
    expected = fid_statistics_to_metric(
        fid_features_to_statistics(features), fid_features_to_statistics(reference), False
    )["frechet_inception_distance"]
    assert trace_frechet_distance(features, reference) == pytest.approx(expected, rel=1e-5)


def test_the_trace_form_is_defined_for_fewer_images_than_features():
    features, reference = gaussian(0, 5, 20), gaussian(1, 8, 20)
    assert trace_frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert trace_frechet_distance(features, reference) > 1


def test_the_line_in_one_over_n_takes_the_bias_away():
    """The distance of n standard normal rows from many is about D (1 + D) / (4 n) plus the mean's D / n too large."""
    reference = gaussian(0, 40000, 8)
    at_all = trace_frechet_distance(gaussian(5, 400, 8), reference)
    estimates = [frechet_at_infinity(gaussian(seed, 400, 8), reference, seed=seed) for seed in range(10, 22)]
    assert abs(np.mean(estimates)) < 0.4 * at_all
    assert frechet_at_infinity(gaussian(3, 60), reference[:, :4], seed=1) == frechet_at_infinity(
        gaussian(3, 60), reference[:, :4], seed=1
    )


def test_kid_of_whole_sets_is_what_others_compute():
    features, reference = gaussian(0, 60, 16), 1.2 * gaussian(1, 60, 16) + 0.1
    expected = kernel_distance(features.numpy(), reference.numpy(), num_subsets=1, max_subset_size=60)
    assert kid(features, reference, seed=0, subsets=1) == pytest.approx(expected, rel=1e-9)
    assert kid(features, reference, seed=0, subsets=1) == pytest.approx(float(poly_mmd(features, reference)), rel=1e-9)
    products = (features @ features.T, features @ reference.T, reference @ reference.T)
    kernels = [((product / 16 + 1) ** 3).numpy() for product in products]
    assert kid(features, reference, seed=0, subsets=1) == pytest.approx(mmd2(*kernels), rel=1e-9)


def test_kid_is_unbiased_and_its_subsets_are_the_seeds():
    same = [kid(gaussian(seed, 100, 8), gaussian(seed + 50, 100, 8), seed=0, subsets=1) for seed in range(40)]
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(len(same))
    rows = gaussian(0, 200, 8), gaussian(1, 200, 8)
    assert kid(*rows, seed=3, subset_size=50) == kid(*rows, seed=3, subset_size=50)
    assert kid(*rows, seed=3, subset_size=50) != kid(*rows, seed=4, subset_size=50)
    assert kid_subsets(*rows, seed=3, subsets=7, subset_size=50).shape == (7,)


def test_cmmd_is_the_published_statistic():
    features, reference = gaussian(0, 70, 12), gaussian(1, 50, 12) + 0.5
    x, y = (rows / rows.norm(dim=1, keepdim=True) for rows in (features, reference))
    kernels = [torch.exp(-(torch.cdist(a, b) ** 2) / 200).numpy() for a, b in ((x, x), (x, y), (y, y))]
    expected = 1000 * (kernels[0].mean() + kernels[2].mean() - 2 * kernels[1].mean())
    assert cmmd(features, reference) == pytest.approx(expected, rel=1e-9)
    assert cmmd(features, reference, chunk=7) == pytest.approx(expected, rel=1e-9)
    x, y = x[:50], y[:50]
    kernels = [torch.exp(-(torch.cdist(a, b) ** 2) / 200).numpy() for a, b in ((x, x), (x, y), (y, y))]
    assert cmmd(features[:50], reference) == pytest.approx(1000 * mmd2(*kernels, mmd_est="biased"), rel=1e-9)


def test_cmmd_ignores_lengths_and_order():
    features, reference = gaussian(0, 30, 6), gaussian(1, 30, 6)
    assert cmmd(3 * features.flip(0), reference) == pytest.approx(cmmd(features, reference), rel=1e-9)
    assert cmmd(features, features) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("chunk", [13, 1024])
def test_precision_and_recall_are_torch_fidelitys(chunk):
    features, reference = gaussian(0, 120, 5), 1.5 * gaussian(1, 100, 5)
    expected = prc_features_to_metric(features, reference, prc_neighborhood=3, verbose=False)
    assert precision_recall(features, reference, 3, chunk) == pytest.approx(
        (expected["precision"], expected["recall"]), abs=1e-6
    )


def test_density_counts_spheres_and_coverage_the_spheres_that_hold_any():
    reference = column(0, 1, 10, 11)  # with one neighbour each sphere has radius 1
    density, coverage = density_coverage(column(0.5, 0.6, 30), reference, 1)
    assert density == pytest.approx((2 + 2 + 0) / 3)
    assert coverage == pytest.approx(2 / 4)


def test_a_set_covers_itself():
    features = gaussian(0, 80, 6)
    density, coverage = density_coverage(features, features, 5)
    assert coverage == 1
    assert density == pytest.approx(1, abs=0.01)  # in each sphere the point and k - 1 neighbours, one on its surface


@pytest.mark.parametrize("dim", [4, 64])
def test_vendi_counts_what_differs(dim):
    copies = gaussian(0, 1, dim).expand(10, -1)
    assert vendi_score(copies) == pytest.approx(1, abs=1e-6)
    three = torch.eye(dim, dtype=torch.float64)[[0, 0, 1, 1, 2, 2]]
    assert vendi_score(three) == pytest.approx(3, abs=1e-9)


def test_opposite_images_are_no_two_directions():
    """Cosines of -1 stay: K has rank one, and clipped ones would count two images."""
    assert vendi_score(column(1, -1, 1, -1)) == pytest.approx(1, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 100))
def test_vendi_is_between_one_and_the_number_of_images_and_of_features(count, dim, seed):
    assert 1 - 1e-9 <= vendi_score(gaussian(seed, count, dim)) <= min(count, dim) + 1e-9


METRICS = {
    "the Frechet distance": trace_frechet_distance,
    "FD-infinity": lambda x, y: frechet_at_infinity(x, y, seed=0),
    "KID": lambda x, y: kid(x, y, seed=0),
    "CMMD": cmmd,
    "precision and recall": lambda x, y: precision_recall(x, y, 3),
    "density and coverage": lambda x, y: density_coverage(x, y, 3),
    "the Vendi score": lambda x, y: vendi_score(x),
}


@pytest.mark.parametrize("name", METRICS)
def test_broken_features_are_named(name):
    features = gaussian(0, 30)
    features[[4, 7]] = torch.nan
    with pytest.raises(ValueError, match=rf"{name}.* not finite for 2 of 30 images \(the first is image 4\)"):
        METRICS[name](features, gaussian(1, 30))
    with pytest.raises(ValueError, match=rf"{name}.* needs at least \d+ images and has 0"):
        METRICS[name](gaussian(0, 0), gaussian(1, 30))


@pytest.mark.parametrize("name", [name for name in METRICS if name != "the Vendi score"])
def test_features_of_different_networks_are_refused(name):
    with pytest.raises(ValueError, match="must come from the same network"):
        METRICS[name](gaussian(0, 30), gaussian(1, 30, 5))
