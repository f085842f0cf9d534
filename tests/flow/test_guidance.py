import pytest
import torch

from onex_distill.flow.guidance import guided_velocity, is_guided, on_axis
from onex_distill.flow.sigma_draws import sigma_grid
from onex_distill.flow.sigmas import shift_sigma

SHIFT = 3.0


def velocities():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 4, 5, 5, generator=generator, dtype=torch.float64)


def unguided_share(alpha, axis, shift=SHIFT):
    """The share of the grid, which is uniform in u, on which guidance is off."""
    return 1 - is_guided(sigma_grid(shift), alpha, axis, shift).double().mean().item()


def test_scale_one_is_the_conditional_and_scale_zero_the_unconditional():
    conditional, unconditional = velocities()
    torch.testing.assert_close(guided_velocity(conditional, unconditional, 1.0), conditional, rtol=0, atol=1e-14)
    assert torch.equal(guided_velocity(conditional, unconditional, 0.0), unconditional)


def test_equal_velocities_are_left_alone_by_any_scale():
    velocity, _ = velocities()
    assert torch.equal(guided_velocity(velocity, velocity, 7.0), velocity)


def test_guidance_extrapolates_along_the_difference():
    conditional, unconditional = velocities()
    beyond = guided_velocity(conditional, unconditional, 7.0) - conditional
    torch.testing.assert_close(beyond, 6 * (conditional - unconditional))


@pytest.mark.parametrize("axis", ["sigma", "u"])
def test_alpha_one_guides_everywhere_and_alpha_zero_nowhere(axis):
    grid = sigma_grid(SHIFT)
    assert is_guided(grid, 1.0, axis, SHIFT).all()
    assert not is_guided(grid, 0.0, axis, SHIFT).any()


def test_alpha_one_guides_pure_noise_in_float32_too():
    assert is_guided(torch.ones(2), 1.0, "sigma", SHIFT).all()
    assert is_guided(torch.ones(2), 1.0, "u", SHIFT).all()


def test_the_threshold_itself_is_guided_and_just_above_is_not():
    sigma = torch.tensor([0.93, 0.94, 0.9401, 1.0], dtype=torch.float64)
    assert is_guided(sigma, 0.94, "sigma", SHIFT).tolist() == [True, True, False, False]


@pytest.mark.parametrize(("alpha", "share"), [(0.94, 0.18 / 1.12), (0.96, 0.12 / 1.08)])
def test_on_sigma_guidance_is_off_for_the_closed_form_share_of_uniform_u(alpha, share):
    # u(alpha) = alpha / (3 - 2 alpha); to first order in 1 - alpha the share is 3 (1 - alpha), that is 18 % and 12 %
    assert unguided_share(alpha, "sigma") == pytest.approx(share, abs=1e-3)
    assert unguided_share(alpha, "sigma") == pytest.approx(SHIFT * (1 - alpha), abs=0.02)


@pytest.mark.parametrize("alpha", [0.94, 0.96])
def test_on_u_guidance_is_off_for_one_minus_alpha(alpha):
    assert unguided_share(alpha, "u") == pytest.approx(1 - alpha, abs=1e-3 + 1e-9)


def test_without_a_shift_the_axes_agree():
    grid = sigma_grid(1.0)
    assert torch.equal(is_guided(grid, 0.94, "sigma", 1.0), is_guided(grid, 0.94, "u", 1.0))


def test_the_axis_u_undoes_the_shift():
    u = torch.linspace(0, 1, 11, dtype=torch.float64)
    sigma = shift_sigma(u, SHIFT)
    assert on_axis(sigma, "sigma", SHIFT) is sigma
    torch.testing.assert_close(on_axis(sigma, "u", SHIFT), u)
