"""Which steps of a sampling run a band of blocks, and which reuse its last stored residual: a table of step x band.

A band is a half-open range of blocks (start, stop). Bands of one plan do not overlap; a reusing step takes the residual
that the same band stored last.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Band = tuple[int, int]
Bands = tuple[Band, ...]


@dataclass(frozen=True)
class CachePlan:
    """``computes[step][band]`` is true where the band runs and stores its residual, false where it is reused.

    A plan without bands runs every block in every step. Lists are accepted and become tuples, so that a plan reads
    back from JSON. Raises ValueError for a malformed, empty, unsorted or overlapping band, and for a table that does
    not fit the bands or whose first step reuses.
    """

    bands: Bands
    computes: tuple[tuple[bool, ...], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "bands", as_bands(self.bands))
        object.__setattr__(self, "computes", tuple(tuple(bool(cell) for cell in row) for row in self.computes))
        _check_table(self)

    @property
    def num_inference_steps(self) -> int:
        """The steps that the plan is for."""
        return len(self.computes)


def reuse_after_first(bands: Sequence[Sequence[int]], num_inference_steps: int) -> CachePlan:
    """The paper's plan: the first step stores every band, all later steps reuse it. Without bands: plain sampling."""
    table = tuple((step == 0,) * len(bands) for step in range(num_inference_steps))
    return CachePlan(as_bands(bands), table)


def as_bands(bands: Sequence[Sequence[int]]) -> Bands:
    """Bands as sorted tuples; raises ValueError for anything but non-empty, ascending, disjoint half-open ranges."""
    for band in bands:
        # a delta over a span with gaps would count the blocks of the gaps twice
        if len(band) != 2:
            raise ValueError(
                f"bands holds {list(band)}, not a (start, stop) range; give each contiguous run its own band"
            )
        if band[0] >= band[1]:
            raise ValueError(f"bands holds the empty range {list(band)}; the start must lie below the stop")
    for (start, stop), (next_start, next_stop) in pairwise(bands):
        if next_start < start:
            raise ValueError(f"bands {[list(b) for b in bands]} are not in ascending order; sort them by their start")
        if next_start < stop:
            raise ValueError(
                f"bands [{start}, {stop}] and [{next_start}, {next_stop}] overlap; "
                f"merge them into [{start}, {max(stop, next_stop)}] or separate them"
            )
    return tuple((int(start), int(stop)) for start, stop in bands)


def check_bands(bands: Sequence[Sequence[int]], num_layers: int) -> None:
    """Raise ValueError unless every half-open band lies strictly between the first and the last block.

    The first block sees the new timestep before anything is reused; the last has no text output to restore.
    """
    for start, stop in bands:
        if not 1 <= start < stop <= num_layers - 1:
            raise ValueError(
                f"band {[start, stop]} must be a non-empty half-open range inside blocks 1 to "
                f"{num_layers - 2} of {num_layers}, leaving out the first and the last; "
                f"try [1, {min(5, num_layers - 1)}]"
            )


def check_steps(plan: CachePlan, num_inference_steps: int) -> None:
    """Raise ValueError unless the plan is for this many steps."""
    if plan.num_inference_steps != num_inference_steps:
        raise ValueError(
            f"the cache plan is for {plan.num_inference_steps} steps but num_inference_steps is {num_inference_steps}; "
            "give the plan one row per step"
        )


def effective_nfe(plan: CachePlan, num_layers: int) -> float:
    """Network evaluations per image, blocks counted as in the paper: 1 - skipped / total per step.

    The cost of the compensation is left out here; ``metrics.cost.flops_of`` counts it.
    """
    skipped = sum(
        stop - start
        for row in plan.computes
        for (start, stop), computed in zip(plan.bands, row, strict=True)
        if not computed
    )
    return plan.num_inference_steps - skipped / num_layers


def plan_for_budget(nfe: float, candidates: Sequence[Bands], num_layers: int, num_inference_steps: int) -> CachePlan:
    """The plan that uses most of a budget of network evaluations without exceeding it; the earlier one of equals.

    Evaluations are compared at two decimals, as budgets are written (1.67 admits 5/3).

    Args:
        nfe: The budget, evaluations per image.
        candidates: Sets of bands that are reused together after the first step; running every block is always one more.
        num_layers: Blocks of the transformer.
        num_inference_steps: Steps of the student.

    Returns:
        The plan of one candidate.

    Raises:
        ValueError: The budget is outside the range that the candidates reach, which the message names.
    """
    plans = [reuse_after_first(bands, num_inference_steps) for bands in ((), *candidates)]
    costs = [round(effective_nfe(plan, num_layers), 2) for plan in plans]
    if not min(costs) <= nfe <= num_inference_steps:
        raise ValueError(
            f"nfe {nfe} cannot be met: the trained bands reach {min(costs):.2f} to {num_inference_steps:.2f} "
            f"in {num_inference_steps} steps; choose a budget in that range or other num_inference_steps"
        )
    best = max(cost for cost in costs if cost <= nfe)
    return plans[costs.index(best)]


def _check_table(plan: CachePlan) -> None:
    if not plan.computes:
        raise ValueError("the cache plan has no steps; give it one row per step")
    for step, row in enumerate(plan.computes):
        if len(row) != len(plan.bands):
            raise ValueError(
                f"step {step} of the cache plan has {len(row)} entries for {len(plan.bands)} bands; give one per band"
            )
    if not all(plan.computes[0]):
        band = plan.bands[plan.computes[0].index(False)]
        raise ValueError(
            f"the first step of the cache plan reuses band {list(band)} before anything is stored; compute it"
        )
