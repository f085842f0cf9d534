"""ShapesWorld's evaluator as a feature network: whitened features, what captions name, sizes."""

import pytest
import torch
from PIL import Image

from onex_distill.evaluation.scorers.base import load_network
from onex_distill.evaluation.shapes_network import ShapesParams
from onex_distill.shapes.render import render
from onex_distill.shapes.world import COLOURS, FILLS, SHAPES, sample_attributes
from support import PROJECT


@pytest.fixture(scope="module")
def network():
    params = ShapesParams(kind="shapes", name="shapes", location=str(PROJECT / "data/01_raw/evaluator"))
    return load_network(params, PROJECT, torch.device("cpu"))


@pytest.fixture(scope="module")
def rendered():
    draws = torch.Generator().manual_seed(123)
    scenes = sample_attributes(1500, draws)
    names = [list(COLOURS), list(SHAPES), list(FILLS)]
    named = [scenes[name].tolist() for name in ("colour", "shape", "fill")]
    texts = [f"a {names[2][f]} {names[0][c]} {names[1][s]}" for c, s, f in zip(*named, strict=True)]
    return (render(scenes, draws) * 255).round().to(torch.uint8), texts, scenes


def test_rendered_images_have_features_of_no_mean_and_unit_variance(network, rendered):
    images, texts, _ = rendered
    features = network.features(images, texts)["features"].double()
    values = torch.linalg.eigvalsh(features.T.cov())
    assert features.mean(0).abs().max() < 0.12
    torch.testing.assert_close(features.std(0), torch.ones(64, dtype=torch.float64), rtol=0, atol=0.12)
    assert 0.5 < values.min() < values.max() < 2  # of the raw features, the largest is thousands of times the median


def test_rendered_images_are_aligned_and_others_are_not(network, rendered):
    images, texts, _ = rendered
    assert network.features(images[:200], texts[:200])["alignment"].mean() > 0.97
    assert network.features(images[:200], texts[200:400])["alignment"].mean() < 0.2


def test_what_is_free_is_read_beside_what_it_follows(network, rendered):
    images, texts, scenes = rendered
    rows = network.features(images[:200], texts[:200])
    values, parents = rows["background"].long().unbind(1)
    assert (values == scenes["background"][:200]).float().mean() > 0.97
    assert torch.equal(parents, scenes["colour"][:200])
    torch.testing.assert_close(rows["background_expected"].sum(1), torch.ones(200))


def test_a_caption_that_names_nothing_has_no_alignment(network, rendered):
    rows = network.features(rendered[0][:2], ["a castle at dawn", "a solid red circle"])
    assert rows["alignment"].isnan().tolist() == [True, False]
    assert rows["background"][0, 1].isnan()
    assert rows["features"].isfinite().all()


def test_other_sizes_are_refused(network):
    with pytest.raises(ValueError, match="reads 32 x 32 pixels, got 64 x 48"):
        network.features([Image.new("RGB", (64, 48))], ["a solid red circle"])
