"""The planner: memory per rank and disk of every training, counted before anything starts."""

from onex_distill.distill.planner.needs import Need, decoding_need, sampling_need, stage_one_need, stage_two_need
from onex_distill.distill.planner.remedies import NeedOf, remedy
from onex_distill.distill.planner.resources import available_disk, available_memory, gib, require_fit

__all__ = [
    "Need",
    "NeedOf",
    "available_disk",
    "available_memory",
    "decoding_need",
    "gib",
    "remedy",
    "require_fit",
    "sampling_need",
    "stage_one_need",
    "stage_two_need",
]
