"""What the evaluator reads from images: alignment with the caption and the distribution of the free attributes.

Shapes: N images; attributes are int64 (N,) each.
"""

import torch
from torch import Tensor

from onex_distill.shapes.world import FREE, NAMED, PARENT, VALUES, Attributes, conditional_probabilities, dominant_value


def alignment(read: Attributes, named: Attributes) -> float:
    """Share of images that show every attribute the caption names."""
    right = torch.stack([read[name] == named[name] for name in NAMED]).all(0)
    return float(right.float().mean())


def conditional_histogram(attribute: str, read: Attributes, named: Attributes) -> Tensor:
    """p(free attribute | its parent), read from images: (parent values, values), rows sum to 1 where seen."""
    parent = named[PARENT[attribute]]
    counts = torch.zeros(len(VALUES[PARENT[attribute]]), len(VALUES[attribute]))
    counts.index_put_((parent, read[attribute]), torch.ones(len(parent)), accumulate=True)
    return counts / counts.sum(1, keepdim=True).clamp_min(1)


def entropies(read: Attributes, named: Attributes) -> dict[str, float]:
    """Conditional entropy H(free attribute | its parent) in nats, a value per free attribute."""
    result = {}
    for attribute in FREE:
        histogram = conditional_histogram(attribute, read, named)
        share = torch.bincount(named[PARENT[attribute]], minlength=len(histogram)) / len(named[PARENT[attribute]])
        row_entropy = -(histogram * histogram.clamp_min(1e-12).log()).sum(1)
        result[attribute] = float((share * row_entropy).sum())
    return result


def total_variation(attribute: str, read: Attributes, named: Attributes) -> float:
    """Mean over parents of the total-variation distance to the renderer's own conditional distribution."""
    histogram = conditional_histogram(attribute, read, named)
    parents = torch.arange(len(histogram))
    wanted = conditional_probabilities(attribute, parents)
    seen = histogram.sum(1) > 0
    return float((histogram - wanted).abs().sum(1)[seen].mean() / 2)


def dominant_share(attribute: str, read: Attributes, named: Attributes) -> float:
    """Share of images that show the dominant value of a free attribute."""
    return float((read[attribute] == dominant_value(attribute, named[PARENT[attribute]])).float().mean())
