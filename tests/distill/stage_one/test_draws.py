import pytest
import torch

from onex_distill.distill.stage_one.draws import StepDraws
from onex_distill.distill.stage_one.params import ImportanceParams
from onex_distill.flow.sigmas import step_sigmas

SHIFT = 3.0
SHAPE = (4, 8, 8)


@pytest.fixture
def draws_of(stage_one_params):
    """``draws_of(**changes)`` draws for the fixture's run with changed parameters."""

    def make(**changes) -> StepDraws:
        params = type(stage_one_params)(**{**dict(stage_one_params), "batch_size": 200, **changes})
        return StepDraws(params, SHIFT, SHAPE, prompts=7)

    return make


def test_a_step_draws_the_same_again_and_another_step_something_else(draws_of):
    draws = draws_of()
    first, again, other = draws.draw(3), draws.draw(3), draws.draw(4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_shares_of_ranks_are_the_whole_batch(draws_of):
    drawn = draws_of().draw(0)
    parts = [drawn.share(rows, torch.device("cpu")) for rows in (slice(0, 90), slice(90, 200))]
    for name in drawn._fields:
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(drawn, name))


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_sigmas_lie_in_the_window_of_their_step(draws_of, count):
    drawn = draws_of(num_inference_steps=count).draw(0)
    levels = step_sigmas(count, SHIFT).float()
    assert set(drawn.steps.tolist()) == set(range(count))
    for sigma in (drawn.sigma, drawn.fake_sigma):
        assert (sigma <= levels[drawn.steps] + 1e-6).all()
        assert (sigma > levels[drawn.steps + 1]).all()
        assert sigma.dtype == torch.float32


def test_over_the_full_range_sigmas_lie_anywhere_above_the_steps_end(draws_of):
    drawn = draws_of(sigma_range="full").draw(0)
    lower = step_sigmas(2, SHIFT).float()[drawn.steps + 1]
    assert (drawn.sigma > lower).all()
    last = drawn.steps == 1
    assert (drawn.sigma[last] > 0.75).any()
    assert (drawn.sigma[last] < 0.75).any()


def test_from_x0_over_the_full_range_the_step_does_not_matter(draws_of):
    drawn = draws_of(sigma_range="full", matched="x0").draw(0)
    for step in (0, 1):
        sigma = drawn.fake_sigma[drawn.steps == step]
        assert (sigma < 0.75).any()
        assert (sigma > 0.75).any()


def test_several_numbers_of_steps_are_drawn_one_per_step(draws_of):
    draws = draws_of(num_inference_steps=(1, 2, 8))
    counts = [len(draws.levels(step)) - 1 for step in range(60)]
    assert set(counts) == {1, 2, 8}
    assert counts == [len(draws.levels(step)) - 1 for step in range(60)]
    for step in range(3):
        assert int(draws.draw(step).steps.max()) < counts[step]


def test_the_importance_curve_is_the_students_alone(draws_of):
    low = ImportanceParams(curve=((0.0, 1e-6), (600.0, 1e-6), (700.0, 1.0), (1000.0, 1.0)), axis="sigma", smoothing=0.0)
    uniform = ImportanceParams(curve="uniform", axis="sigma", smoothing=0.0)
    skewed, plain = draws_of(importance=low).draw(0), draws_of(importance=uniform).draw(0)
    assert torch.equal(skewed.fake_sigma, plain.fake_sigma)
    last = skewed.steps == 1
    assert (skewed.sigma[last] < 0.45).all()
    assert plain.sigma[last].median() > 0.45


@pytest.mark.parametrize(("axis", "above", "below"), [("u", 0.303, 0.168), ("sigma", 0.234, 0.060)])
def test_sigmas_follow_the_smoothed_curve_on_its_own_axis(draws_of, axis, above, below):
    """The published curve's P(sigma > 0.95 | step 0) and P(sigma < 0.5 | step 1), whatever axis guidance is on."""
    importance = ImportanceParams(curve="c", axis=axis, smoothing=100.0)
    drawn = draws_of(importance=importance, batch_size=20_000).draw(0)
    first, second = (drawn.sigma[drawn.steps == step] for step in (0, 1))
    assert (first > 0.95).double().mean().item() == pytest.approx(above, abs=0.015)
    assert (second < 0.5).double().mean().item() == pytest.approx(below, abs=0.015)


def test_a_window_too_narrow_to_draw_from_is_refused_before_training(draws_of):
    with pytest.raises(ValueError, match="use fewer steps"):
        draws_of(num_inference_steps=(2, 2000))
