"""DPG-Bench (Hu et al., 2024): long captions taken apart into propositions, each answered by yes or no.

A proposition counts only when those that it depends on are true: "the cat is black" is false where there is no cat.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd
from torch import Tensor

from onex_distill.parameters import unknown_name

Protocol = Literal["published", "corrected"]

KNOWN = (
    "item_id",
    "text",
    "keywords",
    "proposition_id",
    "dependency",
    "category_broad",
    "category_detailed",
    "tuple",
    "question_natural_language",
)
NEEDED = ("item_id", "text", "proposition_id", "dependency", "category_broad", "question_natural_language")


class Proposition(NamedTuple):
    """A question about the images of an item, numbered within it, and the numbers of those that it depends on."""

    item: str
    text: str
    number: int
    parents: tuple[int, ...]
    category: str
    question: str


def read_propositions(path: Path) -> list[Proposition]:
    """The propositions of a csv with the columns of DPG-Bench (DSG's are the same), in their order.

    Raises ValueError, one line each, for an unreadable file, an unknown or absent column, an empty cell, a proposition
    that is there twice, and a dependency on one that is not there.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as csv ({str(error).splitlines()[0]}); copy it again") from error
    unknown = [str(name) for name in table if name not in KNOWN]
    if unknown:
        raise ValueError(f"{path}: {unknown_name('column', unknown[0], KNOWN)}")
    for name in NEEDED:
        if name not in table:
            raise ValueError(f"{path} has no column {name!r}; take the csv of DPG-Bench or DSG")
        empty = (table[name].str.strip() == "").tolist()
        if any(empty):
            raise ValueError(
                f"{path} has an empty {name} in line {empty.index(True) + 2}; fill it in or remove the line"
            )
    try:
        numbers = [int(one) for one in table["proposition_id"]]
        parents = [tuple(sorted({int(one) for one in row.split(",")} - {0})) for row in table["dependency"]]
    except ValueError as error:
        raise ValueError(f"{path} has an id that is no whole number ({error}); correct it") from error
    columns = (table[name].tolist() for name in ("item_id", "text", "category_broad", "question_natural_language"))
    items, texts, categories, questions = columns
    found = list(map(Proposition, items, texts, numbers, parents, categories, questions))
    _check_items(path, found)
    return found


def by_item(propositions: Sequence[Proposition]) -> dict[str, list[Proposition]]:
    """The propositions of every item, in their order."""
    items: dict[str, list[Proposition]] = {}
    for proposition in propositions:
        items.setdefault(proposition.item, []).append(proposition)
    return items


def _check_items(path: Path, propositions: Sequence[Proposition]) -> None:
    for item, found in by_item(propositions).items():
        numbers = [proposition.number for proposition in found]
        twice = [number for number in numbers if numbers.count(number) > 1]
        if twice:
            raise ValueError(f"{path} has proposition {twice[0]} of {item} twice; remove one")
        for proposition in found:
            absent = set(proposition.parents) - set(numbers)
            if absent:
                raise ValueError(
                    f"{path}: proposition {proposition.number} of {item} depends on {min(absent)}, which is not there"
                )


def proposition_scores(
    propositions: Sequence[Proposition], items: Sequence[str], answers: Tensor, protocol: Protocol
) -> pd.DataFrame:
    """A row per image and proposition: ``answer`` (0 or 1), and ``score``, 0 where a parent is false.

    The published script leaves out the first proposition of its csv, and the images of items with propositions that
    depend on it; the corrected protocol takes all.

    Args:
        propositions: of ``read_propositions``.
        items: the item of each of N images.
        answers: probability of yes (N, Q) to the propositions of each image's item in their order; yes is above 0.5.
        protocol: ``published`` or ``corrected``.

    Returns:
        A table with ``image``, ``item_id``, ``proposition_id``, ``category``, ``answer``, ``score``.

    Raises:
        ValueError: for an item that is not in the csv, and for too few answers.
    """
    known, first = by_item(propositions), propositions[0]
    found = []
    for image, item in enumerate(items):
        if item not in known:
            raise ValueError(f"the csv has no item {item!r}; give the csv that the prompts come from")
        asked = known[item]
        if answers.shape[1] < len(asked):
            raise ValueError(
                f"{item} has {len(asked)} propositions and {answers.shape[1]} answers; score the images again"
            )
        said = {one.number: int(yes > 0.5) for one, yes in zip(asked, answers[image].tolist(), strict=False)}
        kept = [one for one in asked if protocol == "corrected" or one is not first]
        if not {parent for one in kept for parent in one.parents} <= {one.number for one in kept}:
            continue
        scores = dict(said)
        for one in kept:  # in order, so that what depends on a false one is false for its own dependants
            if not all(scores[parent] for parent in one.parents):
                scores[one.number] = 0
            found.append([image, item, one.number, one.category, said[one.number], scores[one.number]])
    return pd.DataFrame(found, columns=["image", "item_id", "proposition_id", "category", "answer", "score"])


def image_scores(scores: pd.DataFrame) -> pd.Series:
    """The share of true propositions of every image, by its number; their mean times 100 is DPG-Bench's overall."""
    return scores.groupby("image")["score"].mean()


def category_scores(scores: pd.DataFrame, protocol: Protocol) -> dict[str, float]:
    """The share of true propositions of every broad category, times 100.

    The published script takes the last image of every item alone, and answers before dependencies.
    """
    if protocol == "published":
        last = scores.groupby("item_id")["image"].transform("max")
        means = scores[scores["image"] == last].groupby("category")["answer"].mean()
    else:
        means = scores.groupby("category")["score"].mean()
    return {str(name): 100 * float(value) for name, value in means.items()}
