import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onex_distill.flow.sigmas import refined_levels, shift_sigma, step_sigmas, unshift_sigma

SHIFTS = st.floats(0.5, 10)


@pytest.mark.parametrize(
    ("steps", "levels"),
    [(1, (1, 0)), (2, (1, 0.75, 0)), (4, (1, 0.9, 0.75, 0.5, 0))],
)
def test_the_published_schedules_at_shift_three(steps, levels):
    expected = torch.tensor(levels, dtype=torch.float64)
    torch.testing.assert_close(step_sigmas(steps, 3.0), expected, rtol=0, atol=1e-15)


def test_without_a_shift_the_steps_are_equal():
    torch.testing.assert_close(step_sigmas(28, 1.0), torch.linspace(1, 0, 29, dtype=torch.float64))


@given(steps=st.integers(1, 100), shift=SHIFTS)
def test_a_schedule_falls_from_exactly_one_to_exactly_zero(steps, shift):
    sigmas = step_sigmas(steps, shift)
    assert len(sigmas) == steps + 1
    assert sigmas[0].item() == pytest.approx(1, abs=1e-15)
    assert sigmas[-1].item() == 0
    assert (sigmas.diff() < 0).all()


@given(u=st.floats(0, 1), shift=SHIFTS)
def test_unshift_undoes_shift(u, shift):
    assert unshift_sigma(shift_sigma(u, shift), shift) == pytest.approx(u, abs=1e-12)
    assert shift_sigma(unshift_sigma(u, shift), shift) == pytest.approx(u, abs=1e-12)


def test_a_larger_shift_moves_every_inner_level_towards_noise():
    u = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    assert (shift_sigma(u, 6.0) > shift_sigma(u, 3.0)).all()
    assert (shift_sigma(u, 3.0) > u).all()


def test_tensors_and_numbers_shift_alike():
    u = torch.tensor([0.0, 0.2, 0.5, 1.0], dtype=torch.float64)
    assert shift_sigma(u, 3.0).tolist() == [shift_sigma(value, 3.0) for value in u.tolist()]


@pytest.mark.parametrize("steps", [0, -3])
def test_a_schedule_needs_a_step(steps):
    with pytest.raises(ValueError, match=f"num_inference_steps must be at least 1, got {steps}"):
        step_sigmas(steps, 3.0)


def test_a_finer_schedule_takes_each_step_over_its_own_levels():
    first, second = refined_levels(step_sigmas(2, 3.0), step_sigmas(6, 3.0))
    assert torch.cat([first[:-1], second]).tolist() == pytest.approx(step_sigmas(6, 3.0).tolist())
    assert (float(first[-1]), float(second[0])) == (0.75, 0.75)


def test_levels_that_the_finer_schedule_lacks_are_added():
    steps = refined_levels(step_sigmas(2, 3.0), step_sigmas(3, 3.0))  # 6/7 and 0.6 on both sides of 0.75
    assert [step.tolist() for step in steps] == [pytest.approx([1, 6 / 7, 0.75]), pytest.approx([0.75, 0.6, 0])]
