import numpy as np
import pytest
import torch

from onex_distill.flow.sigma_draws import (
    PRESETS,
    Window,
    importance_weights,
    matching_window,
    sample_window_sigmas,
    sigma_grid,
)
from onex_distill.flow.sigmas import step_sigmas, unshift_sigma

SHIFT = 3.0
UNIFORM = torch.ones(1000, dtype=torch.float64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def curve_c(axis="u", smoothing=100.0):
    return importance_weights(PRESETS["c"], axis, SHIFT, smoothing)


def level(value, count):
    return torch.full((count,), value, dtype=torch.float64)


def grid_u():
    return unshift_sigma(sigma_grid(SHIFT), SHIFT)


def test_the_grid_is_uniform_in_u_from_one_down_to_a_thousandth():
    expected = torch.arange(1000, 0, -1, dtype=torch.float64) / 1000
    torch.testing.assert_close(grid_u(), expected)
    assert sigma_grid(SHIFT)[0].item() == 1


@pytest.mark.parametrize("axis", ["sigma", "u"])
def test_the_uniform_preset_weighs_every_level_alike(axis):
    weights = importance_weights(PRESETS["uniform"], axis, SHIFT, 100.0)
    torch.testing.assert_close(weights, UNIFORM)


def test_unsmoothed_the_curve_is_linear_between_its_knots():
    weights = curve_c(smoothing=0.0)
    at = {int(1000 - 1000 * u + 0.5): w for u, w in zip(grid_u().tolist(), weights.tolist(), strict=True)}
    assert at[0] == pytest.approx(0.6)
    assert at[150] == pytest.approx(0.95)
    assert at[300] == pytest.approx(1.3)
    assert at[400] == pytest.approx(0.675)
    assert at[500] == pytest.approx(0.05)


@pytest.mark.parametrize("axis", ["sigma", "u"])
def test_the_axis_says_where_the_knots_lie(axis):
    positions, densities = zip(*PRESETS["c"], strict=True)
    coordinate = sigma_grid(SHIFT) if axis == "sigma" else grid_u()
    expected = np.interp(1000 * (1 - coordinate.numpy()), positions, densities)
    torch.testing.assert_close(curve_c(axis, smoothing=0.0), torch.from_numpy(expected))


def test_preset_c_rises_from_u_one_peaks_near_three_quarters_and_decays_to_almost_nothing():
    weights = curve_c()
    peak = int(weights.argmax())
    assert 0.68 < grid_u()[peak].item() < 0.85
    assert (weights[: peak + 1].diff() >= 0).all()
    assert (weights[peak:].diff() <= 0).all()
    assert weights[-1] < 0.01 * weights[peak]
    assert weights[0] > 0.3 * weights[peak]


def test_preset_c_puts_most_mass_on_high_noise():
    weights = curve_c()
    assert weights[grid_u() > 0.5].sum() > 0.9 * weights.sum()


def test_smoothing_leaves_a_log_linear_curve_alone_away_from_the_edges():
    knots = [(float(p), float(np.exp(-p / 200))) for p in range(1001)]
    smoothed = importance_weights(knots, "u", 1.0, 50.0)
    plain = importance_weights(knots, "u", 1.0, 0.0)
    torch.testing.assert_close(smoothed[250:750], plain[250:750], rtol=1e-6, atol=0)


def test_smoothing_is_geometric_so_that_a_curve_and_its_inverse_stay_inverse():
    step = [(0.0, 4.0), (499.0, 4.0), (500.0, 0.25), (1000.0, 0.25)]
    step_inverse = [(position, 1 / density) for position, density in step]
    product = importance_weights(step, "u", 1.0, 30.0) * importance_weights(step_inverse, "u", 1.0, 30.0)
    torch.testing.assert_close(product, UNIFORM)


@pytest.mark.parametrize("steps", [1, 2, 4, 28])
def test_draws_respect_every_window_of_a_schedule(steps):
    sigmas = step_sigmas(steps, SHIFT)
    upper, lower = sigmas[:-1].repeat_interleave(500), sigmas[1:].repeat_interleave(500)
    drawn = sample_window_sigmas(UNIFORM, SHIFT, upper, lower, seeded())
    assert (drawn <= upper + 1e-9).all()
    assert (drawn > lower + 1e-9).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_window_takes_its_upper_end_and_leaves_its_lower_end(dtype):
    grid = sigma_grid(SHIFT)
    lower = torch.cat([grid[1:], torch.zeros(1, dtype=torch.float64)])
    drawn = sample_window_sigmas(UNIFORM, SHIFT, grid.to(dtype), lower.to(dtype), seeded())
    assert torch.equal(drawn, grid)


def test_levels_without_weight_are_never_drawn():
    weights = torch.zeros(1000, dtype=torch.float64)
    weights[[100, 700]] = 1.0
    drawn = sample_window_sigmas(weights, SHIFT, level(1.0, 500), level(0.0, 500), seeded())
    assert set(drawn.tolist()) == set(sigma_grid(SHIFT)[[100, 700]].tolist())


def test_draws_follow_the_weights_inside_the_window():
    weights = torch.zeros(1000, dtype=torch.float64)
    weights[10], weights[20], weights[999] = 3.0, 1.0, 1000.0  # the last lies outside the window
    drawn = sample_window_sigmas(weights, SHIFT, level(1.0, 20_000), level(0.75, 20_000), seeded())
    share = (drawn == sigma_grid(SHIFT)[10]).double().mean().item()
    assert share == pytest.approx(0.75, abs=0.02)


def test_the_same_generator_repeats_the_draw():
    first, again, other = (
        sample_window_sigmas(curve_c(), SHIFT, level(1.0, 50), level(0.0, 50), seeded(s)) for s in (4, 4, 5)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_window_without_a_training_level_is_refused():
    with pytest.raises(ValueError, match="holds none of the 1000 training levels"):
        sample_window_sigmas(UNIFORM, SHIFT, torch.tensor([1.0, 0.5]), torch.tensor([0.75, 0.5]), seeded())


@pytest.mark.parametrize(
    ("sigma_range", "matched", "upper", "lower"),
    [
        ("step", "step_end", [1.0, 0.75], [0.75, 0.0]),
        ("full", "step_end", [1.0, 1.0], [0.75, 0.0]),
        ("step", "x0", [1.0, 0.75], [0.0, 0.0]),
        ("full", "x0", [1.0, 1.0], [0.0, 0.0]),
    ],
)
def test_the_scores_are_compared_from_the_matched_latents_level_up(sigma_range, matched, upper, lower):
    window = matching_window(Window(torch.tensor([1.0, 0.75]), torch.tensor([0.75, 0.0])), sigma_range, matched)
    assert (window.upper.tolist(), window.lower.tolist()) == (upper, lower)


def test_between_free_knots_the_density_is_linear():
    weights = importance_weights(((0.0, 1.0), (500.0, 3.0), (1000.0, 2.0)), "u", SHIFT, 0.0)
    u = unshift_sigma(sigma_grid(SHIFT), SHIFT)
    expected = torch.where(u >= 0.5, 1 + 4 * (1 - u), 2 + 2 * u)
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("axis", "peak", "mean", "above", "below"),
    [("u", 0.912, 0.912, 0.303, 0.168), ("sigma", 0.776, 0.883, 0.234, 0.060)],
)
def test_the_published_curve_has_the_published_figures_on_u_and_others_on_sigma(axis, peak, mean, above, below):
    """K = 2: the mean sigma of step 0, P(sigma > 0.95 | step 0) and P(sigma < 0.5 | step 1)."""
    weights, grid = curve_c(axis), sigma_grid(SHIFT)
    assert float(grid[weights.argmax()]) == pytest.approx(peak, abs=5e-4)
    count = 40_000
    first = sample_window_sigmas(weights, SHIFT, level(1.0, count), level(0.75, count), seeded())
    second = sample_window_sigmas(weights, SHIFT, level(0.75, count), level(0.0, count), seeded())
    assert float(first.mean()) == pytest.approx(mean, abs=0.001)
    assert float((first > 0.95).double().mean()) == pytest.approx(above, abs=0.008)
    assert float((second < 0.5).double().mean()) == pytest.approx(below, abs=0.008)


def test_the_published_curve_peaks_at_a_u_of_776_thousandths():
    assert float(grid_u()[curve_c("u").argmax()]) == pytest.approx(0.776, abs=1e-9)
