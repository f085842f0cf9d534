import pytest
import torch

from onex_distill.shapes.render import render
from onex_distill.shapes.world import BACKGROUNDS, COLOURS, FILLS, POSITIONS, SHAPES, SIZES, VALUES, sample_attributes

MEDIUM = SIZES.index("medium")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def scenes(count=8, **given):
    """Solid black-ground medium red circles in the top left, apart from what is given."""
    defaults = dict.fromkeys(VALUES, 0) | {"size": MEDIUM} | given
    return {name: torch.as_tensor(value).expand(count).clone() for name, value in defaults.items()}


def coverage(images, background=0, colour=0):
    """How much of each pixel is covered by the shape, (B, 32, 32), from the known two colours."""
    ground = torch.tensor(list(BACKGROUNDS.values())[background])[:, None, None]
    ink = torch.tensor(list(COLOURS.values())[colour])[:, None, None]
    return ((images - ground) / (ink - ground))[:, 0]


def area(**given):
    return coverage(render(scenes(64, **given), seeded())).sum((1, 2)).mean().item()


@pytest.fixture(scope="module")
def sampled():
    attributes = sample_attributes(200, seeded(1))
    return attributes, render(attributes, seeded(2))


def test_images_are_rgb_in_the_unit_range(sampled):
    _, images = sampled
    assert images.shape == (200, 3, 32, 32)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1


def test_the_generator_decides_the_image(sampled):
    attributes, images = sampled
    assert torch.equal(render(attributes, seeded(2)), images)
    assert not torch.equal(render(attributes, seeded(3)), images)


def test_every_corner_shows_the_background(sampled):
    attributes, images = sampled
    grounds = torch.tensor(list(BACKGROUNDS.values()))[attributes["background"]]
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        torch.testing.assert_close(images[:, :, row, column], grounds)


@pytest.mark.parametrize("shape", range(len(SHAPES)))
@pytest.mark.parametrize("colour", range(len(COLOURS)))
def test_a_solid_shape_shows_its_full_colour(shape, colour):
    images = render(scenes(4, shape=shape, colour=colour), seeded())
    ink = torch.tensor(list(COLOURS.values())[colour])[None, :, None, None]
    nearest = (images - ink).abs().amax(1).flatten(1).amin(1)
    assert (nearest < 1e-6).all()


@pytest.mark.parametrize("position", range(len(POSITIONS)))
def test_the_shape_sits_in_its_quadrant(position):
    mass = coverage(render(scenes(16, position=position), seeded()))
    offsets = torch.arange(32) - 15.5
    x = (mass.sum(1) * offsets).sum(1) / mass.sum((1, 2))
    y = (mass.sum(2) * offsets).sum(1) / mass.sum((1, 2))
    name = POSITIONS[position]
    assert ((x < 0) == ("left" in name)).all()
    assert ((y < 0) == ("top" in name)).all()


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_sizes_grow(shape):
    small, medium, large = (area(shape=shape, size=size) for size in range(len(SIZES)))
    assert 1.2 * small < medium
    assert 1.2 * medium < large


def test_a_solid_circle_and_square_have_their_area():
    assert area(shape=SHAPES.index("circle")) == pytest.approx(3.1416 * (0.95 * 7.5) ** 2, rel=0.03)
    assert area(shape=SHAPES.index("square")) == pytest.approx((2 * 0.85 * 7.5) ** 2, rel=0.03)


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_a_striped_shape_is_about_half_a_solid_one(shape):
    striped = area(shape=shape, fill=FILLS.index("striped")) / area(shape=shape)
    assert striped == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("shape", ["circle", "square", "triangle"])
def test_a_hollow_shape_is_an_outline_around_the_background(shape):
    hollow = scenes(16, shape=SHAPES.index(shape), fill=FILLS.index("hollow"))
    outline = coverage(render(hollow, seeded()))
    solid = coverage(render(hollow | {"fill": torch.zeros(16, dtype=torch.int64)}, seeded()))
    assert (outline <= solid + 1e-5).all()
    assert (outline.sum((1, 2)) < 0.7 * solid.sum((1, 2))).all()
    assert ((outline < 1e-5) & (solid > 1 - 1e-5)).any(2).any(1).all()


def test_edges_are_anti_aliased():
    mass = coverage(render(scenes(1), seeded()))
    assert ((mass > 0.1) & (mass < 0.9)).sum() > 10


def test_the_same_jitter_draws_the_same_outline_in_every_colour():
    red, blue = (render(scenes(4, colour=c), seeded()) for c in (0, tuple(COLOURS).index("blue")))
    torch.testing.assert_close(coverage(red), coverage(blue, colour=tuple(COLOURS).index("blue")), rtol=0, atol=1e-4)
