"""onex-distill: distil a 28-step, guided text-to-image teacher into a student of 1.x network evaluations."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onex_distill.models.export import FractionalStableDiffusion3Pipeline

__version__ = "0.1.0"
__all__ = ["FractionalStableDiffusion3Pipeline"]


def __getattr__(name: str) -> Any:
    # imported on first use, so that importing the package (as every Kedro command does) does not load torch
    if name == "FractionalStableDiffusion3Pipeline":
        from onex_distill.models.export import FractionalStableDiffusion3Pipeline

        return FractionalStableDiffusion3Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
