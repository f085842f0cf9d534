"""Bands as people type them: ``1-4`` is blocks 1 to 4, both included, which as a list is the half-open [1, 5].

Several bands of one set are separated by commas (``1-3,5-7``), several sets by semicolons (``1-4;1-2``), a single block
is its number, and nothing between semicolons is the set that runs every block.
"""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

from onex_distill.cache.plan import Band, Bands

BAND = re.compile(r"(\d+)(?:-(\d+))?")


def read_bands(value: Any) -> Any:
    """A set of bands from text or from the number of one block; anything else as it is, for pydantic to check."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return value
    return [_read_band(part.strip()) for part in str(value).split(",") if part.strip()]


def read_sets(value: Any) -> Any:
    """Sets of bands from text; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return value
    return [read_bands(part) for part in str(value).split(";")]


def _read_band(text: str) -> Band:
    match = BAND.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no band; write first and last block, both included: 1-4 is blocks 1 to 4")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise ValueError(f"band {text!r} ends before it begins; write {last}-{first} for blocks {last} to {first}")
    return first, last + 1


TypedBands = Annotated[Bands, BeforeValidator(read_bands)]
TypedSets = Annotated[tuple[TypedBands, ...], BeforeValidator(read_sets)]
