"""The base of all parameter models: frozen, nothing unknown accepted, mistyped names answered with a suggestion."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

NAMED = 30  # names in one message
Seed = Annotated[int, Field(ge=0, lt=2**62)]  # what counts up from one must be a number that torch's generators take


class ParameterError(ValueError):
    """What is wrong with values that were read from conf or the command line, in one line."""


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

    @classmethod
    def model_validate(cls, *args: Any, **kwargs: Any) -> Self:
        """As pydantic's; it is what Kedro calls with what it has read. Raises ParameterError."""
        try:
            return super().model_validate(*args, **kwargs)
        except ValidationError as error:
            raise ParameterError(explained(error)) from error


def explained(error: ValidationError) -> str:
    """All that a model refuses, in one line: where, why, and the value unless it is a whole group."""
    problems = []
    for problem in error.errors(include_url=False):
        place = ".".join(str(part) for part in problem["loc"])
        why = str(problem.get("ctx", {}).get("error", problem["msg"]))
        value = problem["input"]
        got = "" if isinstance(value, dict | BaseModel) else f" (got {value!r})"
        problems.append(f"{place} {why}{got}".strip())
    return "; ".join(problems)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that nobody knows, with the nearest known one."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names[:NAMED])}{more}"
    return f"unknown {kind} {name!r}; {hint}"
