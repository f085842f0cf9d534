import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onex_distill.flow.conversions import (
    add_noise,
    euler_step,
    expand_sigma,
    renoise,
    velocity_of,
    velocity_to_noise,
    velocity_to_x0,
    x0_to_velocity,
)

LEVELS = st.floats(0, 1)
SIGMAS = torch.tensor([0.0, 0.25, 0.9, 1.0], dtype=torch.float64)


def draw(seed, dtype=torch.float64):
    """x0 and noise, (4, 3, 5, 6) each."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 4, 3, 5, 6, generator=generator, dtype=dtype)


def exactly(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_the_ends_of_the_path_are_x0_and_noise():
    x0, noise = draw(0)
    assert torch.equal(add_noise(x0, noise, 0.0), x0)
    assert torch.equal(add_noise(x0, noise, 1.0), noise)


@settings(deadline=None, max_examples=50)
@given(sigma=LEVELS)
def test_velocity_gives_back_x0_and_noise_at_every_level(sigma):
    x0, noise = draw(1)
    x_t, velocity = add_noise(x0, noise, sigma), velocity_of(x0, noise)
    exactly(velocity_to_x0(velocity, x_t, sigma), x0)
    exactly(velocity_to_noise(velocity, x_t, sigma), noise)


@settings(deadline=None, max_examples=50)
@given(sigma=LEVELS)
def test_the_two_predictions_mix_back_to_x_t_for_any_velocity(sigma):
    x_t, velocity = draw(2)
    mixed = add_noise(velocity_to_x0(velocity, x_t, sigma), velocity_to_noise(velocity, x_t, sigma), sigma)
    exactly(mixed, x_t)


@settings(deadline=None, max_examples=50)
@given(start=LEVELS, end=LEVELS)
def test_an_euler_step_with_the_true_velocity_stays_on_the_path(start, end):
    x0, noise = draw(3)
    stepped = euler_step(add_noise(x0, noise, start), velocity_of(x0, noise), start, end)
    exactly(stepped, add_noise(x0, noise, end))


@settings(deadline=None, max_examples=50)
@given(sigma=LEVELS)
def test_euler_to_the_ends_is_the_x0_and_the_noise_prediction(sigma):
    x_t, velocity = draw(4)
    exactly(euler_step(x_t, velocity, sigma, 0.0), velocity_to_x0(velocity, x_t, sigma))
    exactly(euler_step(x_t, velocity, sigma, 1.0), velocity_to_noise(velocity, x_t, sigma))


@pytest.mark.parametrize("convert", [velocity_to_x0, velocity_to_noise, add_noise])
def test_a_level_a_sample_equals_each_sample_alone(convert):
    a, b = draw(5)
    together = convert(a, b, SIGMAS)
    alone = [convert(a[i : i + 1], b[i : i + 1], float(SIGMAS[i])) for i in range(4)]
    assert torch.equal(together, torch.cat(alone))


def test_euler_takes_a_start_a_sample_and_one_common_end():
    x_t, velocity = draw(6)
    together = euler_step(x_t, velocity, SIGMAS, 0.1)
    alone = [euler_step(x_t[i : i + 1], velocity[i : i + 1], float(SIGMAS[i]), 0.1) for i in range(4)]
    assert torch.equal(together, torch.cat(alone))


def test_levels_in_float64_leave_the_latents_in_their_own_type():
    x0, noise = draw(7, torch.float32)
    assert add_noise(x0, noise, SIGMAS).dtype == torch.float32
    assert expand_sigma(SIGMAS, x0).shape == (4, 1, 1, 1)


def test_renoise_to_pure_noise_keeps_nothing():
    x, noise = draw(8)
    assert torch.equal(renoise(x, 0.75, 1.0, noise), noise)


@settings(deadline=None, max_examples=50)
@given(sigma=LEVELS)
def test_renoise_from_clean_is_add_noise(sigma):
    x0, noise = draw(9)
    exactly(renoise(x0, 0.0, sigma, noise), add_noise(x0, noise, sigma))


@pytest.mark.parametrize("sigma", [0.0, 0.3, 0.75, 0.999])
def test_renoise_to_the_same_level_changes_nothing(sigma):
    x, noise = draw(10)
    torch.testing.assert_close(renoise(x, sigma, sigma, noise), x, rtol=0, atol=1e-7)


@settings(deadline=None, max_examples=100)
@given(low=st.floats(0, 0.99), step=LEVELS)
def test_renoise_reaches_the_level_in_signal_and_in_variance(low, step):
    high = low + (1 - low) * step
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    kept, fresh = renoise(one, low, high, zero).item(), renoise(zero, low, high, one).item()
    assert kept * (1 - low) == pytest.approx(1 - high, abs=1e-12)
    assert (kept * low) ** 2 + fresh**2 == pytest.approx(high**2, abs=1e-12)


def test_renoised_samples_have_the_mean_and_the_spread_of_the_new_level():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 1, 200_000, generator=generator, dtype=torch.float64)
    x = add_noise(torch.full_like(first, 2.0), first, 0.4)
    moved = renoise(x, 0.4, 0.8, second)
    assert moved.mean().item() == pytest.approx(0.2 * 2.0, abs=0.01)
    assert moved.std().item() == pytest.approx(0.8, abs=0.01)


def test_renoise_takes_levels_a_sample():
    x, noise = draw(11)
    low, high = torch.tensor([0.0, 0.1, 0.5, 0.75]), torch.tensor([0.0, 1.0, 0.6, 0.9])
    together = renoise(x, low, high, noise)
    alone = [renoise(x[i : i + 1], low[i], high[i], noise[i : i + 1]) for i in range(4)]
    assert torch.equal(together, torch.cat(alone))


def test_renoise_in_float32_never_takes_the_root_of_a_negative_number():
    levels = torch.linspace(0, 0.999, 1000)
    x, noise = torch.zeros(1000, 1), torch.ones(1000, 1)
    assert renoise(x, levels, levels, noise).isfinite().all()


@pytest.mark.parametrize("sigma", [0.003, 0.25, 1.0])
def test_x0_to_velocity_undoes_velocity_to_x0(sigma):
    x_t, velocity = draw(12)
    torch.testing.assert_close(x0_to_velocity(velocity_to_x0(velocity, x_t, sigma), x_t, sigma), velocity)


def test_the_velocity_towards_the_true_x0_is_noise_minus_x0():
    x0, noise = draw(13)
    sigma = torch.tensor([0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
    torch.testing.assert_close(x0_to_velocity(x0, add_noise(x0, noise, sigma), sigma), velocity_of(x0, noise))
