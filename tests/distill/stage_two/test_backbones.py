import re
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor, nn

from onex_distill.distill.stage_two.backbones import (
    TimmBackbone,
    TimmParams,
    build_backbone,
    load_timm_backbone,
)
from onex_distill.distill.stage_two.discriminator import Discriminator, frozen
from onex_distill.engine.randomness import seeded

CHANNELS = {"test_convnext": [24, 32, 48], "test_resnet": [32, 32, 48], "test_vit": [64, 64, 64]}
DRAWS = torch.Generator().manual_seed(2)


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


def params(name: str, weights: Path | None, size: int | None = None, levels: tuple[int, ...] = (0, 1, 2)) -> TimmParams:
    return TimmParams(kind="timm", name=name, weights=weights, size=size, levels=levels)


def load(name: str, folder: Path, size: int | None = None) -> TimmBackbone:
    return load_timm_backbone(params(name, save(random_model(name), folder / "model.safetensors"), size)).eval()


@pytest.mark.parametrize("name", CHANNELS)
@torch.no_grad()
def test_levels_and_embedding_are_those_of_the_saved_model(tmp_path, name):
    model = random_model(name)
    backbone = load(name, tmp_path, size=160)
    images = torch.rand(2, 3, 160, 160)
    levels, features = backbone.levels_and_features(images)
    assert [level.shape[1] for level in levels] == list(backbone.level_channels) == CHANNELS[name]
    assert features.shape == (2, backbone.feature_width) == (2, 1000)
    config = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    normalised = (images - mean) / std
    torch.testing.assert_close(features, model(normalised))
    for level, expected in zip(levels, model.forward_intermediates(normalised, intermediates_only=True), strict=False):
        torch.testing.assert_close(level, expected)


@torch.no_grad()
def test_the_projection_of_an_open_clip_checkpoint_is_the_embedding(tmp_path, images):
    """open_clip keeps the image tower below ``visual.trunk`` and CLIP's projection, without bias, as its head."""
    model = random_model("test_convnext")
    model.head.fc.bias.zero_()
    weights = {f"visual.trunk.{key}": value for key, value in model.state_dict().items() if "head.fc" not in key}
    projection = {"visual.head.proj.weight": model.head.fc.weight.detach()}
    text = {"positional_embedding": torch.zeros(3), "logit_scale": torch.tensor(4.6)}
    save_file(weights | projection | text, tmp_path / "open_clip.safetensors")
    theirs = load_timm_backbone(params("test_convnext", tmp_path / "open_clip.safetensors")).eval()
    ours = load_timm_backbone(params("test_convnext", save(model, tmp_path / "timm.safetensors"))).eval()
    for found, expected in zip(theirs.levels_and_features(images), ours.levels_and_features(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@torch.no_grad()
def test_stripes_are_seen_at_full_resolution_and_hardly_at_256(tmp_path):
    """Period 2 px in an image of 1024: what stage two is for, and what shrinking takes away."""
    smooth = nn.functional.interpolate(torch.rand(1, 3, 64, 64, generator=DRAWS), (1024, 1024), mode="bilinear")
    striped = smooth + 0.2 * torch.tensor([-1.0, 1.0]).repeat(512)

    def moved(size: int | None) -> list[float]:
        backbone = load("test_convnext", tmp_path, size)
        (after, _), (before, _) = (backbone.levels_and_features(image) for image in (striped, smooth))
        return [float((a - b).norm() / b.norm()) for a, b in zip(after, before, strict=True)]

    assert min(moved(None)) > 0.4
    assert max(moved(256)) < 0.02


@torch.no_grad()
def test_images_are_resized_where_a_size_is_given(tmp_path, images):
    for size, edges in ((None, [8, 4, 2]), (160, [40, 20, 10])):
        levels, _ = load("test_convnext", tmp_path, size).levels_and_features(images)
        assert [level.shape[-1] for level in levels] == edges
    grey, whole = torch.full((1, 3, 48, 64), 0.3), torch.full((1, 3, 160, 160), 0.3)
    resizing, plain = load("test_convnext", tmp_path, 160), load("test_convnext", tmp_path)
    for level, expected in zip(resizing.levels_and_features(grey)[0], plain.levels_and_features(whole)[0], strict=True):
        torch.testing.assert_close(level, expected)


@torch.no_grad()
def test_colours_outside_the_nominal_range_are_seen(tmp_path, images):
    backbone = load("test_convnext", tmp_path)
    for image, clamped in ((images + 1, torch.ones_like(images)), (images - 1, torch.zeros_like(images))):
        beyond, within = (backbone.levels_and_features(seen)[1] for seen in (image, clamped))
        assert not torch.allclose(beyond, within, rtol=1e-3)


def test_a_discriminator_stands_on_it(tmp_path, images):
    backbone = load("test_convnext", tmp_path, 160)
    discriminator = Discriminator(frozen(backbone), hidden=4)
    images.requires_grad_()
    logits = discriminator(images)
    assert [tuple(level.shape) for level in logits] == [(2, 400), (2, 100), (2, 25), (2, 1)]
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
    cached = load_timm_backbone(params("test_convnext.r160_in1k", None)).eval()
    given = load_timm_backbone(params("test_convnext", path)).eval()
    assert torch.equal(cached.levels_and_features(images)[1], given.levels_and_features(images)[1])


PAPER = "convnext_xxlarge.clip_laion2b_soup"


def test_the_papers_discriminator_at_its_true_shape(inputs):
    """Heads 512 wide on three levels hold 12.4 M weights, the one on CLIP's 1024-d embedding 0.5 M."""
    with torch.device("meta"):
        network = timm.create_model(PAPER)
        backbone = TimmBackbone(network, (0, 1, 2), None)
        heads = Discriminator(frozen(backbone), hidden=512)
    assert backbone.level_channels == (384, 768, 1536)
    assert backbone.feature_width == 1024
    assert network.head.fc.weight.shape == (1024, 3072)
    convolutions = sum(512 * (9 * channels + 1) + 512 + 1 for channels in (384, 768, 1536))
    assert sum(p.numel() for p in heads.heads.parameters()) == convolutions == 12_389_379
    assert sum(p.numel() for p in heads.pooled_head.parameters()) == 512 * (1024 + 1) + 512 + 1
    built = build_backbone(params(PAPER, None), inputs.recogniser)
    assert {n: p.shape for n, p in built.named_parameters()} == {n: p.shape for n, p in backbone.named_parameters()}
    assert all(parameter.is_meta for parameter in built.parameters())


def test_the_papers_weights_are_asked_for_by_name():
    with pytest.raises(ValueError, match=rf"hf download timm/{re.escape(PAPER)} model\.safetensors"):
        load_timm_backbone(params(PAPER, None))


@pytest.mark.parametrize(
    ("name", "size", "levels", "message"),
    [
        (
            "test_convnext",
            None,
            (0, 1, 4),
            r"levels \[0, 1, 4\] of the backbone 'test_convnext' must be ascending .* to 3",
        ),
        ("test_convnext", None, (1, 0), r"levels \[1, 0\] of the backbone 'test_convnext' must be ascending"),
        ("test_vit", None, (0,), "'test_vit' takes images of 160 pixels alone, not size None; set its size to 160"),
        ("test_vit", 224, (0,), "'test_vit' takes images of 160 pixels alone, not size 224"),
    ],
)
def test_what_a_network_cannot_see_is_answered_in_one_line(tmp_path, name, size, levels, message):
    path = save(random_model(name), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        load_timm_backbone(params(name, path, size, levels))


def pickled(folder: Path) -> Path:
    torch.save(random_model("test_convnext").state_dict(), folder / "model.bin")
    return folder / "model.bin"


def cut(folder: Path) -> Path:
    path = save(random_model("test_convnext"), folder / "cut.safetensors")
    path.write_bytes(path.read_bytes()[:-50])
    return path


def another(folder: Path) -> Path:
    return save(random_model("test_resnet"), folder / "other.safetensors")


def without_head(folder: Path) -> Path:
    """What features-only models are saved as: the embedding would be missing."""
    model = random_model("test_convnext")
    model.head.fc = nn.Identity()
    return save(model, folder / "headless.safetensors")


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
        (without_head, "are not those of the timm model 'test_convnext'"),
        (incomplete, "are not those of the timm model 'test_convnext'"),
    ],
)
def test_bad_weights_are_answered_in_one_line(tmp_path, weights, message):
    path = weights(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        load_timm_backbone(params("test_convnext", path))
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
        load_timm_backbone(params(name, None))
    assert "\n" not in str(error.value)
