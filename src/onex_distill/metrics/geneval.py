"""GenEval's rules (Ghosh et al., 2023) over detections: which objects, how many, of which colour, where.

Boxes are (left, top, right, bottom) in pixels.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import PositiveInt, ValidationError

from onex_distill.parameters import Params

Relation = Literal["left of", "right of", "above", "below"]

THRESHOLD, COUNTING_THRESHOLD = 0.3, 0.9
"""Scores that a detection must have; where objects are counted, a higher one."""
MOST = 16
"""Detections of one class that are looked at, the best ones."""
NEAR = 0.1
"""Share of both boxes' sides that an offset must exceed to count."""


class Detection(NamedTuple):
    """An object that was found, with the name of its colour or an empty string."""

    name: str
    score: float
    box: tuple[float, float, float, float]
    colour: str = ""


class Wanted(Params):
    """Objects that must be there; ``position`` is a relation to those of an earlier requirement, by its number.

    ``class`` and ``color`` are spelt as in the benchmark's files.
    """

    name: str
    count: PositiveInt
    colour: str = ""
    position: tuple[Relation, int] | None = None


class Case(Params):
    """A prompt of the benchmark: what must be there, and what must not be there so many times."""

    tag: str
    prompt: str
    include: tuple[Wanted, ...]
    exclude: tuple[Wanted, ...] = ()


def read_cases(path: Path) -> list[Case]:
    """The cases of an ``evaluation_metadata.jsonl``. Raises ValueError with the line that is not understood."""
    cases = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            for part in ("include", "exclude"):
                found[part] = [_spelt(wanted) for wanted in found.get(part, [])]
            cases.append(Case.model_validate(found))
        except (AttributeError, KeyError, TypeError, ValueError, ValidationError) as error:
            raise ValueError(f"{path} line {number} is no case of GenEval ({str(error).splitlines()[0]})") from error
        if any(w.position and not 0 <= w.position[1] < place for place, w in enumerate(cases[-1].include)):
            raise ValueError(f"{path} line {number} has a position relative to a later object; correct it")
    if not cases:
        raise ValueError(f"{path} has no cases; copy it again")
    return cases


def _spelt(wanted: Mapping[str, object]) -> dict[str, object]:
    names = {"class": "name", "color": "colour"}
    return {names.get(name, name): value for name, value in wanted.items()}


def is_correct(case: Case, detections: Sequence[Detection]) -> bool:
    """Whether an image shows what its prompt asks for."""
    objects = _objects(detections, COUNTING_THRESHOLD if case.tag == "counting" else THRESHOLD)
    matched: list[list[Detection] | None] = []
    correct = True
    for wanted in case.include:
        found = objects.get(wanted.name, [])[: wanted.count]
        fits = len(found) == wanted.count
        if fits and wanted.colour:
            fits = all(detection.colour == wanted.colour for detection in found)
        if fits and wanted.position:
            relation, place = wanted.position
            targets = matched[place]
            fits = targets is not None and all(
                relation in relations(one.box, other.box) for one in found for other in targets
            )
        matched.append(found if fits else None)
        correct = correct and fits
    return correct and all(len(objects.get(unwanted.name, [])) < unwanted.count for unwanted in case.exclude)


def relations(box: Sequence[float], other: Sequence[float]) -> set[Relation]:
    """Where the first box is as seen from the second; none where their centres are near each other.

    The offset of the centres is shortened along each axis by a tenth of both boxes' sides, then compared with its
    length: an axis counts when more than half of it.
    """
    first, second = (np.asarray(one, dtype=np.float64).reshape(2, 2) for one in (box, other))
    offset = first.mean(0) - second.mean(0)
    sides = np.abs(first[1] - first[0]) + np.abs(second[1] - second[0])
    shortened = np.maximum(np.abs(offset) - NEAR * sides, 0) * np.sign(offset)
    if np.all(np.abs(shortened) < 1e-3):
        return set()
    x, y = shortened / np.linalg.norm(offset)
    named: dict[Relation, bool] = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {name for name, holds in named.items() if holds}


def tag_scores(cases: Sequence[Case], correct: Sequence[bool]) -> dict[str, float]:
    """The share of correct images of every tag, case i belonging to image i; ``overall`` is the mean over tags."""
    tags = dict.fromkeys(case.tag for case in cases)
    of_tag = {tag: [right for case, right in zip(cases, correct, strict=True) if case.tag == tag] for tag in tags}
    shares = {tag: float(np.mean(values)) for tag, values in of_tag.items()}
    return {"overall": float(np.mean(list(shares.values()))), **shares}


def _objects(detections: Sequence[Detection], threshold: float) -> dict[str, list[Detection]]:
    """Detections above the threshold by class, the best first."""
    objects: dict[str, list[Detection]] = {}
    for detection in sorted(detections, key=lambda one: -one.score):
        if detection.score > threshold and len(objects.setdefault(detection.name, [])) < MOST:
            objects[detection.name].append(detection)
    return objects
