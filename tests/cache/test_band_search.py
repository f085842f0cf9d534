from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onex_distill.cache.band_search import blocks_to_skip, plans_by_blocks, sets_of_bands
from onex_distill.cache.plan import check_bands, effective_nfe, plan_for_budget, reuse_after_first


def skipped_by_blocks(nfe: float, num_layers: int) -> int:
    costs = {n: effective_nfe(plan, num_layers) for n, plan in plans_by_blocks(num_layers, 2).items()}
    return blocks_to_skip("nfe", nfe, costs, 2)


@pytest.mark.parametrize(
    ("nfe", "num_layers", "expected"),
    [(1.67, 12, 4), (1.75, 12, 3), (1.5, 12, 6), (1.92, 12, 1), (1.17, 12, 10), (1.67, 24, 8), (1.74, 38, 10)],
)
def test_the_papers_budgets_skip_the_papers_blocks(nfe, num_layers, expected):
    assert skipped_by_blocks(nfe, num_layers) == expected


def test_any_count_of_evaluations_serves():
    costs = {1: 1.904, 2: 1.806, 3: 1.714}
    budgets = {1.9: 1, 1.89: 2, 1.81: 2, 1.72: 3, 1.71: 3}
    assert {budget: blocks_to_skip("nfe_flops", budget, costs, 2) for budget in budgets} == budgets
    with pytest.raises(ValueError, match=r"no band meets nfe_flops 1\.7 in 2 steps; choose one from 1\.71 to below 2"):
        blocks_to_skip("nfe_flops", 1.7, costs, 2)


@given(nfe=st.floats(1.2, 1.99), num_layers=st.integers(8, 40))
def test_the_fewest_blocks_that_meet_a_budget_are_skipped(nfe, num_layers):
    skipped = skipped_by_blocks(nfe, num_layers) if nfe >= 1.3 else 0
    candidates = [((1, 1 + count),) for count in range(1, num_layers - 1)]
    if skipped:
        plan = plan_for_budget(nfe, candidates, num_layers, 2)
        assert sum(stop - start for start, stop in plan.bands) == skipped


@pytest.mark.parametrize("nfe", [2.0, 2.5, 1.1])
def test_a_budget_that_no_band_meets_is_refused(nfe):
    with pytest.raises(ValueError, match=rf"no band meets nfe {nfe} in 2 steps; .* 1\.17 to below 2"):
        skipped_by_blocks(nfe, 12)


def brute_force(skipped: int, num_layers: int, max_bands: int) -> set:
    """Every choice of blocks between the first and the last, as bands."""
    found = set()
    for mask in range(2 ** (num_layers - 2)):
        blocks = [index + 1 for index in range(num_layers - 2) if mask >> index & 1]
        if len(blocks) != skipped:
            continue
        starts = [block for block in blocks if block - 1 not in blocks]
        stops = [block + 1 for block in blocks if block + 1 not in blocks]
        if len(starts) <= max_bands:
            found.add(tuple(zip(starts, stops, strict=True)))
    return found


@pytest.mark.parametrize("max_bands", [1, 2, 3])
@pytest.mark.parametrize(("skipped", "num_layers"), [(1, 6), (4, 9), (7, 9)])
def test_the_sets_are_all_that_there_are(skipped, num_layers, max_bands):
    sets = sets_of_bands(skipped, num_layers, max_bands)
    assert len(sets) == len(set(sets))
    assert set(sets) == brute_force(skipped, num_layers, max_bands)
    for bands in sets:
        check_bands(bands, num_layers)
        assert all(first[1] < second[0] for first, second in pairwise(bands))
        assert effective_nfe(reuse_after_first(bands, 2), num_layers) == pytest.approx(2 - skipped / num_layers)
