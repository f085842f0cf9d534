"""The base of all parameter models: frozen, nothing unknown accepted, mistyped names answered with a suggestion."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Seed = Annotated[int, Field(ge=0, lt=2**62)]  # what counts up from one must be a number that torch's generators take


class Params(BaseModel):
    """A group of parameters. Raises pydantic's ValidationError for a wrong type, range or name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _suggest_names(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for name in data:
                if name not in cls.model_fields:
                    raise ValueError(unknown_name("parameter", str(name), cls.model_fields))
        return data


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that nobody knows, with the nearest known one."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
    return f"unknown {kind} {name!r}; {hint}"
