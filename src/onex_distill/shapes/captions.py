"""Every caption of ShapesWorld, its split, and the reading of a caption back into named attributes."""

from itertools import product

import pandas as pd
import torch

from onex_distill.shapes.world import COLOURS, FILLS, NAMED, SHAPES, VALUES, Attributes
from onex_distill.storage.prompt_table import split_of

TEMPLATES = (
    "a {fill} {colour} {shape}",
    "a {colour} {shape} that is {fill}",
    "one {shape} {fill} in {colour}",
    "the {colour} {fill} {shape}",
    "a picture of a {fill} {colour} {shape}",
    "{colour} {shape} with a {fill} body",
    "there is a {fill} {shape} in {colour}",
    "{fill} {colour} {shape} on a plain ground",
)
FILL_WORDS = {"solid": ("solid", "filled"), "hollow": ("hollow", "outlined"), "striped": ("striped", "banded")}


def all_captions() -> pd.DataFrame:
    """The whole language: columns ``id``, ``text``, ``split`` and the index of each named attribute.

    The split is a hash of the text, so that a held-out caption is a sentence nobody was trained on, while every
    combination of colour, shape and fill occurs in every split or close to it.
    """
    rows = []
    for (c, colour), (s, shape), (f, fill) in product(enumerate(COLOURS), enumerate(SHAPES), enumerate(FILLS)):
        for template, word in product(TEMPLATES, FILL_WORDS[fill]):
            text = template.format(colour=colour, shape=shape, fill=word)
            rows.append({"text": text, "split": split_of(text), "colour": c, "shape": s, "fill": f})
    table = pd.DataFrame(rows)
    table.insert(0, "id", [f"shapes-{i:05d}" for i in range(len(table))])
    return table


def read_caption(text: str) -> dict[str, int]:
    """The named attributes of a caption as indices into ``VALUES``; a missing one is left out."""
    synonyms = {word: fill for fill, words in FILL_WORDS.items() for word in words}
    words = [synonyms.get(word, word) for word in text.lower().split()]
    found = {}
    for name in NAMED:
        hits = [VALUES[name].index(word) for word in words if word in VALUES[name]]
        if hits:
            found[name] = hits[0]
    return found


def unreadable_captions(texts: list[str]) -> list[str]:
    """The captions that do not name all of colour, shape and fill."""
    return [text for text in texts if len(read_caption(text)) < len(NAMED)]


def named_attributes(texts: list[str]) -> Attributes:
    """Named attributes of complete captions, int64 (B,) each.

    Raises ValueError where a caption does not name all of colour, shape and fill.
    """
    rows = [read_caption(text) for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if len(row) < len(NAMED):
            missing = ", ".join(name for name in NAMED if name not in row)
            raise ValueError(f"the caption {text!r} names no {missing}, so alignment cannot be scored on it")
    return {name: torch.tensor([row[name] for row in rows]) for name in NAMED}
