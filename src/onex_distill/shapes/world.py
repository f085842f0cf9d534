"""The attributes of ShapesWorld and their joint distribution.

A caption names colour, shape and fill. Background, position and size stay free, but each follows one named attribute:
given it, one value is dominant and the others share the rest, while over the whole world every value is equally common.
Guidance therefore sharpens the free attributes, as it does in real data, and that is the loss of diversity under study.

Shapes: B batch. Attributes are int64 tensors of shape (B,).
"""

import torch
from torch import Tensor

IMAGE_SIZE = 32

COLOURS = {
    "red": (0.90, 0.10, 0.10),
    "orange": (1.00, 0.55, 0.05),
    "yellow": (0.95, 0.92, 0.15),
    "green": (0.10, 0.65, 0.15),
    "cyan": (0.10, 0.85, 0.85),
    "blue": (0.10, 0.20, 0.90),
    "purple": (0.50, 0.10, 0.70),
    "pink": (1.00, 0.50, 0.75),
}
SHAPES = ("circle", "square", "triangle", "cross")
FILLS = ("solid", "hollow", "striped")
BACKGROUNDS = {
    "black": (0.02, 0.02, 0.02),
    "white": (0.98, 0.98, 0.98),
    "grey": (0.55, 0.55, 0.55),
    "brown": (0.32, 0.20, 0.10),
}
POSITIONS = ("top left", "top right", "bottom left", "bottom right")
SIZES = ("small", "medium", "large")

VALUES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "fill": FILLS,
    "background": tuple(BACKGROUNDS),
    "position": POSITIONS,
    "size": SIZES,
}
NAMED = ("colour", "shape", "fill")
FREE = ("background", "position", "size")
PARENT = {"background": "colour", "position": "shape", "size": "fill"}
DOMINANT_PROBABILITY = {"background": 0.55, "position": 0.55, "size": 0.60}

Attributes = dict[str, Tensor]


def dominant_value(attribute: str, parent_value: Tensor) -> Tensor:
    """The most likely value of a free attribute given the value of the named attribute that it follows."""
    return parent_value % len(VALUES[attribute])


def conditional_probabilities(attribute: str, parent_value: Tensor) -> Tensor:
    """p(free attribute | named attribute), shape (B, number of values)."""
    count = len(VALUES[attribute])
    minor = (1.0 - DOMINANT_PROBABILITY[attribute]) / (count - 1)
    probabilities = torch.full((len(parent_value), count), minor)
    dominant = dominant_value(attribute, parent_value)[:, None]
    return probabilities.scatter(1, dominant, DOMINANT_PROBABILITY[attribute])


def sample_attributes(count: int, generator: torch.Generator) -> Attributes:
    """Draw ``count`` scenes: named attributes uniform, free attributes from their conditional distribution."""
    named = {name: torch.randint(len(VALUES[name]), (count,), generator=generator) for name in NAMED}
    return named | sample_free_attributes(named, generator)


def sample_free_attributes(named: Attributes, generator: torch.Generator) -> Attributes:
    """Draw background, position and size for given named attributes."""
    return {
        name: torch.multinomial(conditional_probabilities(name, named[PARENT[name]]), 1, generator=generator)[:, 0]
        for name in FREE
    }
