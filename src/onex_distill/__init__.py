"""onex-distill: distil a 28-step, guided text-to-image teacher into a student of 1.x network evaluations.

What users and stored folders name is found here, whatever room it lives in.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onex_distill.cache.compensation import Compensation
    from onex_distill.cache.export import FractionalStableDiffusion3Pipeline
    from onex_distill.cache.student import load_student

__version__ = "0.1.0"
__all__ = ["Compensation", "FractionalStableDiffusion3Pipeline", "load_student"]

_HOMES = {
    "Compensation": "onex_distill.cache.compensation",
    "FractionalStableDiffusion3Pipeline": "onex_distill.cache.export",
    "load_student": "onex_distill.cache.student",
}


def __getattr__(name: str) -> Any:
    # imported on first use, so that importing the package (as every Kedro command does) does not load torch
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
