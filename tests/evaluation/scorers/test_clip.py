import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import image_transform
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import cosine_similarity, normalize
from torchvision.transforms import v2

from onex_distill.evaluation.scorers.base import MissingScorer, load_network, missing_rows
from onex_distill.evaluation.scorers.clip import MEAN, STD, ClipParams
from onex_distill.evaluation.scorers.states import convert_pickle
from photographs import photographs
from tiny_scorers import clip_config, local, open_clip_model, seeded, write_architecture, write_clip

CPU = torch.device("cpu")
CAPTIONS = ["a woman in an orange suit", "a cat", "A cup of COFFEE, on a table!", "tissue", "a wheel", "x " * 100]


@pytest.fixture(scope="module")
def images():
    names = ("astronaut.png", "chelsea.png", "coffee.png", "ihc.png", "logo.png", "motorcycle_left.png")
    return [photographs()[name] for name in names]


def _pixels(images):
    """As open_clip and openai's CLIP prepare images, in float64."""
    transform = image_transform(224, is_train=False, mean=MEAN, std=STD)
    return torch.stack([transform(image) for image in images]).double()


def _network(tmp_path, root, **settings):
    return load_network(ClipParams(name="clip", **settings), root, CPU)


def test_clip_score_is_the_cosine_that_transformers_gives(tmp_path, images):
    config = clip_config()
    model, weights = write_clip(tmp_path / "weights", config)
    network = _network(
        tmp_path, tmp_path, weights=weights, architecture=write_architecture(tmp_path / "config", config)
    )
    rows = network.features(images, CAPTIONS)
    tokens = open_clip.get_tokenizer("ViT-B-32")(CAPTIONS)
    with torch.no_grad():
        seen = model.double().get_image_features(_pixels(images)).pooler_output
        read = model.get_text_features(tokens).pooler_output
    torch.testing.assert_close(rows["score"].double(), cosine_similarity(seen, read), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows["image"].double(), normalize(seen), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows["text"].double(), normalize(read), atol=1e-5, rtol=0)
    assert rows["score"].std() > 0.01


def test_pick_score_is_the_temperature_times_the_cosine(tmp_path, images):
    config = clip_config("gelu")
    model, weights = write_clip(tmp_path / "weights", config)
    architecture = write_architecture(tmp_path / "config", config)
    network = _network(tmp_path, tmp_path, weights=weights, architecture=architecture, score="temperature")
    score = network.features(images, CAPTIONS)["score"]
    tokens = open_clip.get_tokenizer("ViT-H-14")(CAPTIONS)
    model = model.double()
    with torch.no_grad():  # the original: scores = exp(logit_scale) * (text @ image.T), the diagonal
        seen = model.visual_projection(model.vision_model(_pixels(images)).pooler_output)
        read = model.text_projection(model.text_model(tokens).pooler_output)
        seen, read = (x / x.norm(dim=-1, keepdim=True) for x in (seen, read))
        expected = (model.logit_scale.exp() * read @ seen.T).diagonal()
    torch.testing.assert_close(score.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["hps224", "hps224_unantialiased"])
def test_hpsv2_is_the_originals_from_its_pickle(tmp_path, images, name):
    original = open_clip_model(seed=3)
    torch.save({"epoch": 1, "state_dict": original.state_dict()}, tmp_path / "HPS_v2.1_compressed.pt")
    convert_pickle(tmp_path / "HPS_v2.1_compressed.pt", tmp_path / "HPS_v2.1_compressed.safetensors")
    network = _network(
        tmp_path,
        tmp_path,
        weights=local(tmp_path, "HPS_v2.1_compressed.safetensors"),
        architecture=write_architecture(tmp_path / "config", clip_config("gelu")),
        preparation=name,
        score="percent",
    )
    score = network.features(images, CAPTIONS)["score"]
    original = original.double()
    expected = []
    for image, tokens in zip(images, open_clip.get_tokenizer("ViT-H-14")(CAPTIONS), strict=True):
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).double() / 255
        high, wide = (round(side * 224 / max(pixels.shape[1:])) for side in pixels.shape[1:])
        pixels = v2.functional.resize(pixels, [high, wide], v2.InterpolationMode.BICUBIC, antialias=name == "hps224")
        left, top = (224 - wide) // 2, (224 - high) // 2
        pixels = v2.functional.pad(pixels, [left, top, 224 - wide - left, 224 - high - top], fill=0)
        pixels = v2.functional.normalize(pixels, list(MEAN), list(STD))
        with torch.no_grad():
            seen = original.encode_image(pixels[None], normalize=True)
            read = original.encode_text(tokens[None], normalize=True)
        expected.append(100 * float(seen @ read.T))
    # PIL rounds to whole levels where the original resizes a tensor
    np.testing.assert_allclose(score.numpy(), expected, atol=0.05 if name == "hps224" else 2e-4)
    assert np.std(expected) > 0.3


def test_the_prefix_stands_before_every_caption(tmp_path, images):
    config = clip_config()
    _, weights = write_clip(tmp_path / "weights", config)
    settings = {"weights": weights, "architecture": write_architecture(tmp_path / "config", config)}
    plain = _network(tmp_path, tmp_path, **settings)
    prefixed = _network(tmp_path, tmp_path, **settings, prefix="A photo depicts ")
    expected = plain.features(images, [f"A photo depicts {caption}" for caption in CAPTIONS])["score"]
    torch.testing.assert_close(prefixed.features(images, CAPTIONS)["score"], expected)


def test_the_aesthetic_head_is_the_originals_five_layers(tmp_path, images):
    config = clip_config()
    _, weights = write_clip(tmp_path / "weights", config)

    class Original(nn.Module):
        def __init__(self):
            super().__init__()
            sizes = (nn.Linear(32, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2))
            self.layers = nn.Sequential(
                *sizes, nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1)
            )

    head = seeded(Original(), 5)
    torch.save(head.state_dict(), tmp_path / "head.pth")
    settings = {
        "weights": weights,
        "architecture": write_architecture(tmp_path / "config", config),
        "aesthetic": local(tmp_path, "head.safetensors"),
    }
    params = ClipParams(name="clip", **settings)
    assert "head.safetensors is missing" in missing_rows(params, tmp_path)["aesthetic"].reason
    assert "aesthetic" not in load_network(params, tmp_path, CPU).features(images, CAPTIONS)
    convert_pickle(tmp_path / "head.pth", tmp_path / "head.safetensors")
    assert missing_rows(params, tmp_path) == {}
    rows = load_network(params, tmp_path, CPU).features(images, CAPTIONS)
    with torch.no_grad():
        expected = head.double().layers(rows["image"].double())[:, 0]
    torch.testing.assert_close(rows["aesthetic"].double(), expected, atol=1e-5, rtol=1e-5)


def test_another_aesthetic_head_is_refused(tmp_path):
    config = clip_config()
    _, weights = write_clip(tmp_path / "weights", config)
    save_file({"linear.weight": torch.zeros(1, 32)}, tmp_path / "head.safetensors")
    params = ClipParams(
        name="clip",
        weights=weights,
        architecture=write_architecture(tmp_path / "config", config),
        aesthetic=local(tmp_path, "head.safetensors"),
    )
    with pytest.raises(ValueError, match=r"has no layers\.0\.weight"):
        load_network(params, tmp_path, CPU)


def test_weights_of_another_architecture_are_refused(tmp_path):
    _, weights = write_clip(tmp_path / "weights", clip_config())
    architecture = write_architecture(tmp_path / "config", clip_config(image_size=336))
    with pytest.raises(ValueError, match="position_embedding"):
        _network(tmp_path, tmp_path, weights=weights, architecture=architecture)


def test_what_is_absent_is_missing_with_the_file_and_the_way_to_get_it(tmp_path):
    architecture = write_architecture(tmp_path / "config", clip_config())
    weights = {"hub": "huggingface", "location": "a/b", "revision": "1234", "files": [{"name": "model.safetensors"}]}
    missing = _network(tmp_path, tmp_path, weights=weights, architecture=architecture)
    assert isinstance(missing, MissingScorer)
    assert "huggingface/a--b/1234/model.safetensors is missing" in missing.reason
    assert "kedro run --pipelines=fetch_scorers" in missing.reason
