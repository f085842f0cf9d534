import pytest
import torch

from onex_distill.shapes.world import (
    DOMINANT_PROBABILITY,
    FREE,
    NAMED,
    PARENT,
    VALUES,
    conditional_probabilities,
    dominant_value,
    sample_attributes,
    sample_free_attributes,
)

COUNT = 40_000


@pytest.fixture(scope="module")
def scenes():
    return sample_attributes(COUNT, torch.Generator().manual_seed(0))


def parents_of(attribute):
    return torch.arange(len(VALUES[PARENT[attribute]]))


def shares(values, count):
    return torch.bincount(values, minlength=count) / len(values)


@pytest.mark.parametrize("attribute", FREE)
def test_a_conditional_distribution_is_one_with_a_single_dominant_value(attribute):
    parents = parents_of(attribute)
    probabilities = conditional_probabilities(attribute, parents)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(parents)))
    assert torch.equal(probabilities.argmax(1), dominant_value(attribute, parents))
    assert probabilities.max(1).values.tolist() == pytest.approx([DOMINANT_PROBABILITY[attribute]] * len(parents))
    assert probabilities.unique().numel() == 2


@pytest.mark.parametrize("attribute", FREE)
def test_over_the_whole_world_every_free_value_is_equally_common(attribute):
    overall = conditional_probabilities(attribute, parents_of(attribute)).mean(0)
    torch.testing.assert_close(overall, torch.full_like(overall, 1 / len(overall)))


@pytest.mark.parametrize("attribute", VALUES)
def test_draws_are_uniform_overall(scenes, attribute):
    count = len(VALUES[attribute])
    torch.testing.assert_close(
        shares(scenes[attribute], count), torch.full((count,), 1 / count), rtol=0, atol=4 / COUNT**0.5
    )


@pytest.mark.parametrize("attribute", FREE)
def test_draws_follow_their_parent(scenes, attribute):
    for parent in parents_of(attribute):
        rows = scenes[PARENT[attribute]] == parent
        wanted = conditional_probabilities(attribute, parent[None])[0]
        torch.testing.assert_close(shares(scenes[attribute][rows], len(wanted)), wanted, rtol=0, atol=0.04)


def test_named_attributes_are_independent(scenes):
    joint = scenes["colour"] * 12 + scenes["shape"] * 3 + scenes["fill"]
    torch.testing.assert_close(shares(joint, 96), torch.full((96,), 1 / 96), rtol=0, atol=0.004)


def test_free_attributes_are_drawn_for_the_given_captions():
    named = {name: torch.zeros(2000, dtype=torch.int64) for name in NAMED}
    free = sample_free_attributes(named, torch.Generator().manual_seed(1))
    for name in FREE:
        assert (free[name] == 0).float().mean().item() == pytest.approx(DOMINANT_PROBABILITY[name], abs=0.05)


def test_the_generator_decides_the_scenes():
    first, again, other = (sample_attributes(100, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in VALUES)
    assert any(not torch.equal(first[name], other[name]) for name in VALUES)
