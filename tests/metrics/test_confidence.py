"""Intervals cover what they should, tests reject as often as they say, on simulated data with seeds."""

import math

import numpy as np
import pytest
import torch

from onex_distill.metrics import confidence
from onex_distill.metrics.frechet import trace_frechet_distance


def simulated(seed: int, prompts: int = 64, images: int = 4, mean: float = 0.7) -> tuple[torch.Tensor, torch.Tensor]:
    """Values of images whose prompts differ: a deviation of 1 between prompts and of 0.5 within."""
    random = np.random.default_rng(seed)
    of_prompt = random.normal(mean, 1.0, prompts)
    values = np.repeat(of_prompt, images) + random.normal(0, 0.5, prompts * images)
    return torch.tensor(values), torch.arange(prompts).repeat_interleave(images)


def test_prompts_are_averaged_whatever_their_order_and_number_of_images():
    prompts, means = confidence.prompt_means(torch.tensor([1.0, 5.0, 3.0, 7.0]), torch.tensor([4, 2, 4, 4]))
    assert prompts.tolist() == [2, 4]
    assert means.tolist() == pytest.approx([5.0, 11 / 3])


def test_the_bootstrap_covers_the_true_mean_nineteen_times_in_twenty():
    hits = 0
    for seed in range(400):
        _, means = confidence.prompt_means(*simulated(seed))
        low, high = confidence.bootstrap_interval(means, 0.95, 400, seed)
        hits += low <= 0.7 <= high
    assert 0.915 <= hits / 400 <= 0.975


def test_images_of_one_prompt_taken_for_independent_would_not_cover():
    hits = 0
    for seed in range(400):
        values, _ = simulated(seed)
        low, high = confidence.bootstrap_interval(values, 0.95, 400, seed)
        hits += low <= 0.7 <= high
    assert hits / 400 < 0.8


def test_permutation_rejects_no_difference_one_time_in_twenty():
    random = np.random.default_rng(3)
    p_values = [confidence.sign_flip_p_value(torch.tensor(random.normal(0, 1, 40)), 400, seed) for seed in range(400)]
    assert 0.025 <= np.mean(np.array(p_values) <= 0.05) <= 0.08
    assert confidence.sign_flip_p_value(torch.tensor(random.normal(1, 1, 40)), 2000, 0) < 0.01


def test_permutation_of_few_prompts_is_that_of_all_signs():
    values = torch.tensor([1.0, 2.0, 3.0])  # 2 of 8 sign patterns are as far from zero
    assert confidence.sign_flip_p_value(values, 40000, 1) == pytest.approx(2 / 8, abs=0.01)
    assert confidence.sign_flip_p_value(torch.zeros(5), 100, 1) == 1


def test_no_permutation_is_surer_than_its_draws_allow():
    assert confidence.sign_flip_p_value(torch.ones(40), 99, 0) == pytest.approx(1 / 100)  # the observed signs alone


def test_holm_multiplies_by_what_is_left_and_never_falls():
    adjusted = confidence.holm([0.01, 0.04, math.nan, 0.03, 0.005])
    assert adjusted[:2] == pytest.approx([0.03, 0.06])
    assert adjusted[3:] == pytest.approx([0.06, 0.02])
    assert math.isnan(adjusted[2])
    assert confidence.holm([0.9, 0.8]) == [1.0, 1.0]


def test_groups_hold_whole_prompts_and_are_even():
    prompts = torch.arange(10).repeat_interleave(3)
    groups = confidence.prompt_groups(prompts, 4, 0)
    assert sorted(torch.bincount(groups[::3]).tolist()) == [2, 2, 3, 3]
    assert all(len(groups[prompts == prompt].unique()) == 1 for prompt in range(10))
    assert confidence.prompt_groups(prompts, 99, 0).unique().numel() == 10


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = torch.randn(30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    replicates = confidence.jackknife(lambda kept: float(values[kept].mean()), torch.arange(30))
    assert confidence.jackknife_deviation(replicates) == pytest.approx(float(values.std()) / math.sqrt(30))
    assert confidence.block_deviation(values) == pytest.approx(float(values.std()) / math.sqrt(30))


def test_the_jackknife_covers_a_frechet_distance():
    """Two Gaussians a distance of 3 apart in the mean of 4 features: the population's distance is 9."""
    hits, prompts = 0, torch.arange(60).repeat_interleave(4)
    for seed in range(120):
        draws = torch.Generator().manual_seed(seed)
        own, other = (torch.randn(240, 4, generator=draws, dtype=torch.float64) for _ in range(2))
        own[:, 0] += 3
        groups = confidence.prompt_groups(prompts, 12, seed)
        replicates = confidence.jackknife(lambda kept, a=own, b=other: trace_frechet_distance(a[kept], b[kept]), groups)
        value = trace_frechet_distance(own, other)
        low, high = confidence.t_interval(value, confidence.jackknife_deviation(replicates), 12, 0.95)
        hits += low <= 9 <= high
    assert 0.89 <= hits / 120 < 1


def test_t_intervals_reach_as_far_as_the_tables_of_students_distribution_say():
    assert confidence.t_interval(3.0, 0.5, 12, 0.95) == pytest.approx((3 - 0.5 * 2.201, 3 + 0.5 * 2.201), abs=5e-4)
    assert confidence.t_interval(3.0, 0.5, 3, 0.9) == pytest.approx((3 - 0.5 * 2.920, 3 + 0.5 * 2.920), abs=5e-4)


def test_t_p_values_are_scipys():
    assert confidence.t_p_value(2.0, 1.0, 11) == pytest.approx(0.0734, abs=1e-4)
    assert confidence.t_p_value(0.0, 0.0, 11) == 1
    assert math.isnan(confidence.t_p_value(1.0, math.nan, 11))


def test_one_prompt_has_no_interval():
    assert all(math.isnan(end) for end in confidence.bootstrap_interval(torch.tensor([1.0]), 0.95, 10, 0))
    assert all(math.isnan(end) for end in confidence.t_interval(1.0, 0.1, 1, 0.95))
