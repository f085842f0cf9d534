"""What a method costs in floating-point operations; ``models.cache_plan.effective_nfe`` counts blocks."""

from collections.abc import Callable

from torch.utils.flop_counter import FlopCounterMode


def flops_of(call: Callable[[], object]) -> int:
    """Floating-point operations of one call, counted by torch."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
