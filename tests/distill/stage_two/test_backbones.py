from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor, nn

from onex_distill.distill.stage_two.backbones import TimmBackbone, load_timm_backbone
from onex_distill.distill.stage_two.discriminator import Discriminator, frozen
from onex_distill.engine.randomness import seeded

NAMES = ["test_convnext", "test_resnet", "test_vit"]
CHANNELS = {"test_convnext": [24, 32, 48, 64], "test_resnet": [32, 32, 48, 192, 96], "test_vit": [64, 64, 64]}


def random_model(name: str) -> nn.Module:
    with seeded(0):
        return timm.create_model(name, pretrained=False).eval()


def save(model: nn.Module, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty hub cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_levels_are_those_of_the_saved_model(tmp_path, name):
    model = random_model(name)
    backbone = load_timm_backbone(name, save(model, tmp_path / "model.safetensors")).eval()
    images = torch.rand(2, 3, 160, 160)
    levels, features = backbone.levels_and_features(images)
    assert [level.shape[1] for level in levels] == list(backbone.level_channels) == CHANNELS[name]
    assert features.shape == (2, backbone.feature_width)
    torch.testing.assert_close(features, levels[-1].mean((2, 3)))
    config = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    whole = model.forward_intermediates((images - mean) / std, intermediates_only=True)
    torch.testing.assert_close(levels[-1], whole[-1])


def test_images_of_any_size_are_resized_to_the_backbones(tmp_path, images):
    backbone = load_timm_backbone("test_convnext", save(random_model("test_convnext"), tmp_path / "m.safetensors"))
    levels, _ = backbone.levels_and_features(images)
    assert [level.shape[-1] for level in levels] == [40, 20, 10, 5]
    grey = torch.full((1, 3, 48, 64), 0.3)
    whole = torch.full((1, 3, 160, 160), 0.3)
    for level, expected in zip(
        backbone.levels_and_features(grey)[0], backbone.levels_and_features(whole)[0], strict=True
    ):
        torch.testing.assert_close(level, expected)


def test_a_discriminator_stands_on_it(tmp_path, images):
    backbone = load_timm_backbone("test_convnext", save(random_model("test_convnext"), tmp_path / "m.safetensors"))
    discriminator = Discriminator(frozen(backbone), hidden=4)
    images.requires_grad_()
    logits = discriminator(images)
    assert [tuple(level.shape) for level in logits] == [(2, 400), (2, 100), (2, 25), (2, 9), (2, 1)]
    for level in logits:
        (gradient,) = torch.autograd.grad(level.sum(), images, retain_graph=True)
        assert gradient.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any("network" in name for name in discriminator.state_dict())


@torch.no_grad()
def test_weights_come_from_the_hub_cache(cache, images):
    model = random_model("test_convnext")
    repository = cache / "models--timm--test_convnext.r160_in1k"
    path = save(model, repository / "snapshots" / ("0" * 40) / "model.safetensors")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("0" * 40)
    cached = load_timm_backbone("test_convnext.r160_in1k", None).eval()
    given = load_timm_backbone("test_convnext", path).eval()
    assert torch.equal(cached.levels_and_features(images)[1], given.levels_and_features(images)[1])


def test_the_papers_backbone_is_a_timm_model():
    with torch.device("meta"):
        network = timm.create_model("convnext_xxlarge.clip_laion2b_soup", features_only=True)
    with pytest.raises(ValueError, match=r"hf download timm/convnext_xxlarge\.clip_laion2b_soup model\.safetensors"):
        load_timm_backbone("convnext_xxlarge.clip_laion2b_soup", None)
    assert network.feature_info.channels() == [384, 768, 1536, 3072]
    assert TimmBackbone(network).size == (256, 256)


def pickled(folder: Path) -> Path:
    torch.save(random_model("test_convnext").state_dict(), folder / "model.bin")
    return folder / "model.bin"


def cut(folder: Path) -> Path:
    path = save(random_model("test_convnext"), folder / "cut.safetensors")
    path.write_bytes(path.read_bytes()[:-50])
    return path


def another(folder: Path) -> Path:
    return save(random_model("test_resnet"), folder / "other.safetensors")


def incomplete(folder: Path) -> Path:
    model = random_model("test_convnext")
    model.stages[-1] = nn.Identity()
    return save(model, folder / "incomplete.safetensors")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (lambda folder: folder / "nowhere.safetensors", "no .safetensors file"),
        (pickled, "no .safetensors file"),
        (cut, "are not those of the timm model 'test_convnext'"),
        (another, "are not those of the timm model 'test_convnext'"),
        (incomplete, "are not those of the timm model 'test_convnext'"),
    ],
)
def test_bad_weights_are_answered_in_one_line(tmp_path, weights, message):
    path = weights(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        load_timm_backbone("test_convnext", path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_convnex", "unknown timm model 'test_convnex'; did you mean 'test_convnext'"),
        ("convnext_xxlarge.clip_laion2b_sop", "did you mean 'convnext_xxlarge.clip_laion2b_soup'"),
        ("test_convnext", "not in the hub cache; fetch them once with 'hf download timm/test_convnext.r160_in1k"),
    ],
)
def test_bad_names_are_answered_in_one_line(name, message):
    with pytest.raises(ValueError, match=message) as error:
        load_timm_backbone(name, None)
    assert "\n" not in str(error.value)
