import math
from itertools import product

import pytest
import torch

from onex_distill.shapes.attributes import (
    alignment,
    conditional_histogram,
    dominant_share,
    entropies,
    total_variation,
)
from onex_distill.shapes.world import (
    DOMINANT_PROBABILITY,
    FREE,
    PARENT,
    VALUES,
    conditional_probabilities,
    dominant_value,
    sample_attributes,
)


def every_scene():
    """Each combination of all six attributes once, so that every free attribute is uniform given its parent."""
    rows = torch.tensor(list(product(*[range(len(values)) for values in VALUES.values()])))
    return {name: rows[:, i] for i, name in enumerate(VALUES)}


def dominant_scenes():
    scenes = every_scene()
    return scenes | {name: dominant_value(name, scenes[PARENT[name]]) for name in FREE}


def true_entropy(attribute):
    p = conditional_probabilities(attribute, torch.tensor([0]))[0].double()
    return float(-(p * p.log()).sum())


@pytest.fixture(scope="module")
def own_draws():
    return sample_attributes(40_000, torch.Generator().manual_seed(0))


def test_alignment_needs_every_named_attribute():
    named = {"colour": torch.zeros(4).long(), "shape": torch.zeros(4).long(), "fill": torch.zeros(4).long()}
    read = {name: values.clone() for name, values in named.items()}
    assert alignment(read, named) == 1
    read["colour"][0] = 1
    assert alignment(read, named) == 0.75
    read["fill"][0] = 2  # the same image is wrong twice
    assert alignment(read, named) == 0.75
    read["shape"][3] = 3
    assert alignment(read, named) == 0.5


def test_alignment_ignores_the_free_attributes():
    scenes = every_scene()
    moved = scenes | {"background": (scenes["background"] + 1) % 4}
    assert alignment(moved, scenes) == 1


def test_the_histogram_counts_a_row_per_parent_value():
    named = {"fill": torch.tensor([0, 0, 0, 2])}
    read = {"size": torch.tensor([0, 0, 1, 2])}
    expected = torch.tensor([[2 / 3, 1 / 3, 0], [0, 0, 0], [0, 0, 1]])
    torch.testing.assert_close(conditional_histogram("size", read, named), expected)


def test_uniform_attributes_have_the_entropy_of_their_number_of_values():
    scenes = every_scene()
    for attribute, entropy in entropies(scenes, scenes).items():
        assert entropy == pytest.approx(math.log(len(VALUES[attribute])), abs=1e-5)


def test_uniform_attributes_miss_the_renderer_by_the_excess_of_its_dominant_value():
    scenes = every_scene()
    for attribute in FREE:
        excess = DOMINANT_PROBABILITY[attribute] - 1 / len(VALUES[attribute])
        assert total_variation(attribute, scenes, scenes) == pytest.approx(excess, abs=1e-5)
        assert dominant_share(attribute, scenes, scenes) == pytest.approx(1 / len(VALUES[attribute]))


def test_a_collapse_onto_the_dominant_values_has_no_entropy():
    scenes = dominant_scenes()
    assert all(entropy == pytest.approx(0, abs=1e-6) for entropy in entropies(scenes, scenes).values())
    for attribute in FREE:
        assert dominant_share(attribute, scenes, scenes) == 1
        missing = 1 - DOMINANT_PROBABILITY[attribute]
        assert total_variation(attribute, scenes, scenes) == pytest.approx(missing, abs=1e-6)


@pytest.mark.parametrize("attribute", FREE)
def test_the_renderers_own_draws_look_like_the_renderer(own_draws, attribute):
    assert total_variation(attribute, own_draws, own_draws) < 0.03
    assert entropies(own_draws, own_draws)[attribute] == pytest.approx(true_entropy(attribute), abs=0.02)
    assert dominant_share(attribute, own_draws, own_draws) == pytest.approx(DOMINANT_PROBABILITY[attribute], abs=0.02)


def test_entropy_is_conditional_on_the_parent():
    # the background tells the colour apart and is fixed by it: varied overall, certain given the caption
    named = {"colour": torch.tensor([0, 0, 1, 1]), "shape": torch.zeros(4).long(), "fill": torch.zeros(4).long()}
    read = {"background": torch.tensor([0, 0, 3, 3]), "position": torch.arange(4), "size": torch.tensor([0, 1, 0, 1])}
    measured = entropies(read, named)
    assert measured["background"] == pytest.approx(0, abs=1e-6)
    assert measured["position"] == pytest.approx(math.log(4), abs=1e-6)
    assert measured["size"] == pytest.approx(math.log(2), abs=1e-6)


def test_entropy_weighs_parents_by_how_often_they_occur():
    named = {"colour": torch.tensor([0, 0, 0, 0, 0, 0, 1, 1]), "shape": torch.zeros(8).long()}
    named["fill"] = torch.zeros(8).long()
    read = {"background": torch.tensor([0, 0, 0, 0, 0, 0, 1, 2]), "position": torch.zeros(8).long()}
    read["size"] = torch.zeros(8).long()
    assert entropies(read, named)["background"] == pytest.approx(math.log(2) / 4, abs=1e-6)


def test_parents_that_never_occur_do_not_count():
    named = {"fill": torch.tensor([1] * 10)}
    read = {"size": torch.tensor([1] * 6 + [0] * 2 + [2] * 2)}
    assert total_variation("size", read, named) == pytest.approx(0, abs=1e-6)
