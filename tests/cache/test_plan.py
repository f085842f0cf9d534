from dataclasses import asdict

import pytest

from onex_distill.cache.plan import (
    CachePlan,
    as_bands,
    check_bands,
    check_steps,
    effective_nfe,
    plan_for_budget,
    reuse_after_first,
)

NESTED = (((1, 2),), ((1, 3),), ((1, 5),), ((1, 5), (8, 10)))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_by_default_the_first_step_stores_and_all_later_ones_reuse(steps):
    plan = reuse_after_first([(1, 3), (4, 6)], steps)
    assert plan.computes == ((True, True),) + ((False, False),) * (steps - 1)
    assert plan.num_inference_steps == steps


def test_a_plan_reads_back_from_plain_lists():
    plan = CachePlan([[1, 3], [5, 6]], [[1, 1], [0, 1], [0, 0]])
    assert plan.bands == ((1, 3), (5, 6))
    assert plan.computes == ((True, True), (False, True), (False, False))
    assert CachePlan(**asdict(plan)) == plan


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ([(2, 4, 6)], r"bands holds \[2, 4, 6\], not a \(start, stop\)"),
        ([(3, 3)], r"empty range \[3, 3\]"),
        ([(5, 3)], r"empty range \[5, 3\]"),
        ([(4, 6), (1, 3)], r"\[\[4, 6\], \[1, 3\]\] are not in ascending order"),
        ([(1, 4), (3, 6)], r"\[1, 4\] and \[3, 6\] overlap; merge them into \[1, 6\]"),
        ([(1, 6), (2, 4)], r"\[1, 6\] and \[2, 4\] overlap; merge them into \[1, 6\]"),
        ([(1, 3), (1, 3)], r"\[1, 3\] and \[1, 3\] overlap"),
    ],
)
def test_bad_bands_are_answered_in_one_line(bands, message):
    with pytest.raises(ValueError, match=message) as error:
        as_bands(bands)
    assert "\n" not in str(error.value)


def test_adjacent_bands_are_two():
    assert as_bands([(1, 3), (3, 5)]) == ((1, 3), (3, 5))


@pytest.mark.parametrize(
    ("computes", "message"),
    [
        ([], "has no steps"),
        ([[True], [False]], "step 0 of the cache plan has 1 entries for 2 bands"),
        ([[True, True], [False]], "step 1 of the cache plan has 1 entries for 2 bands"),
        ([[True, False], [False, False]], r"first step of the cache plan reuses band \[4, 6\]"),
        ([[False, False]], r"first step of the cache plan reuses band \[1, 3\]"),
    ],
)
def test_bad_tables_are_answered_in_one_line(computes, message):
    with pytest.raises(ValueError, match=message) as error:
        CachePlan([(1, 3), (4, 6)], computes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("band", [(0, 3), (1, 6), (3, 6), (2, 2), (3, 2), (-2, 2), (5, 7), (6, 9)])
def test_bands_that_cannot_be_skipped_are_refused(band):
    with pytest.raises(ValueError, match=r"band .* must be a non-empty half-open range") as error:
        check_bands([(1, 2), band], num_layers=6)
    assert str(list(band)) in str(error.value)


def test_bands_between_the_first_and_the_last_block_are_accepted():
    check_bands([(1, 2), (4, 5)], num_layers=6)
    check_bands([(1, 5)], num_layers=6)
    check_bands([], num_layers=6)


def test_a_plan_for_another_number_of_steps_is_refused():
    plan = reuse_after_first([(1, 3)], 2)
    check_steps(plan, 2)
    with pytest.raises(ValueError, match="for 2 steps but num_inference_steps is 4"):
        check_steps(plan, 4)


@pytest.mark.parametrize(
    ("steps", "layers", "bands", "expected"),
    [
        (28, 24, (), 28),
        (1, 24, ((2, 8),), 1),
        (2, 24, ((2, 8),), 1.75),
        (2, 24, ((2, 10),), 1.67),
        (2, 38, ((2, 12),), 1.74),
        (4, 24, ((2, 8),), 3.25),
        (2, 24, ((2, 5), (9, 12)), 1.75),
    ],
)
def test_effective_nfe_as_published(steps, layers, bands, expected):
    assert effective_nfe(reuse_after_first(bands, steps), layers) == pytest.approx(expected, abs=5e-3)


def test_only_the_cells_that_reuse_are_saved():
    plan = CachePlan([(1, 3), (4, 8)], [[True, True], [False, True], [True, False]])
    assert effective_nfe(plan, 10) == pytest.approx(3 - 2 / 10 - 4 / 10)


def test_the_title_is_the_ratio_of_two_counts():
    assert 56 / effective_nfe(reuse_after_first([(2, 10)], 2), 24) == pytest.approx(33.6)


@pytest.mark.parametrize(
    ("nfe", "bands"),
    [
        (2.0, ()),
        (1.99, ((1, 2),)),
        (1.92, ((1, 2),)),
        (1.9, ((1, 3),)),
        (1.67, ((1, 5),)),
        (1.5, ((1, 5), (8, 10))),
        (1.66, ((1, 5), (8, 10))),
    ],
)
def test_a_budget_is_used_up_and_never_exceeded(nfe, bands):
    plan = plan_for_budget(nfe, NESTED, num_layers=12, num_inference_steps=2)
    assert plan == reuse_after_first(bands, 2)
    assert round(effective_nfe(plan, 12), 2) <= nfe


def test_the_earlier_of_equal_candidates_is_preferred():
    candidates = (((5, 7),), ((1, 3),), ((2, 3), (6, 7)))
    assert plan_for_budget(1.9, candidates, 12, 2).bands == ((5, 7),)
    assert plan_for_budget(1.9, candidates[::-1], 12, 2).bands == ((2, 3), (6, 7))


@pytest.mark.parametrize("nfe", [1.49, 0.0, -1.0, 2.01, float("nan")])
def test_a_budget_that_nothing_meets_is_answered_with_the_reachable_range(nfe):
    with pytest.raises(ValueError, match=r"reach 1\.50 to 2\.00 in 2 steps") as error:
        plan_for_budget(nfe, NESTED, num_layers=12, num_inference_steps=2)
    assert f"nfe {nfe}" in str(error.value)
    assert "\n" not in str(error.value)


def test_more_steps_reach_more():
    assert effective_nfe(plan_for_budget(3.0, NESTED, 12, 4), 12) == pytest.approx(4 - 3 * 4 / 12)
