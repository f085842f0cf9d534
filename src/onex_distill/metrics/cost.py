"""What a method costs: network evaluations by blocks and by FLOPs.

Shapes: see ``models.sampling``.
"""

from collections.abc import Callable

from torch.utils.flop_counter import FlopCounterMode


def effective_nfe(steps: int, guided: bool, num_layers: int, cached_blocks: tuple[int, int] | None) -> float:
    """Network evaluations an image, blocks counted as in the paper.

    The first step is whole; each later one counts 1 - skipped / total. Guidance doubles every step. The cost of the
    compensation is left out here and counted in ``flops_of``.
    """
    skipped = 0.0 if cached_blocks is None else (cached_blocks[1] - cached_blocks[0]) / num_layers
    return (1 + (steps - 1) * (1 - skipped)) * (2 if guided else 1)


def flops_of(call: Callable[[], object]) -> int:
    """Floating-point operations of one call, counted by torch."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
