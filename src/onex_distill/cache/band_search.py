"""Which sets of bands meet a budget."""

from collections.abc import Iterator, Mapping
from itertools import combinations, pairwise

from onex_distill.cache.plan import Bands, CachePlan, reuse_after_first


def plans_by_blocks(num_layers: int, num_inference_steps: int) -> dict[int, CachePlan]:
    """For every number of blocks that steps after the first can skip, the plan whose band starts at block 1."""
    return {
        skipped: reuse_after_first(((1, 1 + skipped),), num_inference_steps) for skipped in range(1, num_layers - 1)
    }


def blocks_to_skip(count: str, budget: float, costs: Mapping[int, float], num_inference_steps: int) -> int:
    """The fewest skipped blocks whose cost is within a budget, compared at two decimals.

    Args:
        count: The name of how evaluations are counted, for messages.
        budget: Network evaluations per image.
        costs: Evaluations by number of skipped blocks.
        num_inference_steps: Steps of the student.

    Returns:
        The number of blocks to skip.

    Raises:
        ValueError: The budget needs no band, or no number of blocks meets it.
    """
    rounded = {skipped: round(cost, 2) for skipped, cost in costs.items()}
    enough = [skipped for skipped, cost in rounded.items() if cost <= budget < num_inference_steps]
    if not enough:
        raise ValueError(
            f"no band meets {count} {budget} in {num_inference_steps} steps; choose one from "
            f"{min(rounded.values()):.2f} to below {num_inference_steps}"
        )
    return min(enough)


def sets_of_bands(skipped: int, num_layers: int, max_bands: int) -> list[Bands]:
    """Every way to skip so many blocks between the first and the last, in at most ``max_bands`` separated bands."""
    return [
        tuple(zip(starts, stops, strict=True))
        for count in range(1, max_bands + 1)
        for lengths in _lengths(skipped, count)
        for starts, stops in _places(lengths, num_layers)
    ]


def _lengths(total: int, count: int) -> Iterator[tuple[int, ...]]:
    """Ordered ways to write ``total`` as a sum of ``count`` positive numbers."""
    for cuts in combinations(range(1, total), count - 1):
        edges = (0, *cuts, total)
        yield tuple(b - a for a, b in pairwise(edges))


def _places(lengths: tuple[int, ...], num_layers: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Starts and stops of bands of these lengths, with at least one block that runs before, between and after them."""
    free = num_layers - sum(lengths)
    for cuts in combinations(range(1, free), len(lengths)):
        offsets = [sum(lengths[:number]) for number in range(len(lengths))]
        starts = tuple(cut + offset for cut, offset in zip(cuts, offsets, strict=True))
        yield starts, tuple(start + length for start, length in zip(starts, lengths, strict=True))
