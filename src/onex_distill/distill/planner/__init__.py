"""The planner: memory per rank and disk of every training, counted before anything starts."""

from onex_distill.distill.planner.needs import (
    Need,
    decoding_need,
    encoding_need,
    sampling_need,
    stage_one_need,
    stage_two_need,
)
from onex_distill.distill.planner.remedies import NeedOf, remedy
from onex_distill.distill.planner.resources import (
    available_disk,
    available_memory,
    gib,
    on_accelerator,
    require_fit,
    uses_accelerator,
)

__all__ = [
    "Need",
    "NeedOf",
    "available_disk",
    "available_memory",
    "decoding_need",
    "encoding_need",
    "gib",
    "on_accelerator",
    "remedy",
    "require_fit",
    "sampling_need",
    "stage_one_need",
    "stage_two_need",
    "uses_accelerator",
]
