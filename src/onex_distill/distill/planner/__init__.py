"""The planner: memory per rank and disk of every training, counted before anything starts."""

from onex_distill.distill.planner.needs import Need, stage_one_need, stage_two_need
from onex_distill.distill.planner.remedies import NeedOf, remedy
from onex_distill.distill.planner.resources import available_disk, available_memory, gib, require_fit

__all__ = [
    "Need",
    "NeedOf",
    "available_disk",
    "available_memory",
    "gib",
    "remedy",
    "require_fit",
    "stage_one_need",
    "stage_two_need",
]
