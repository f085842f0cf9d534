"""Inception, LPIPS and DINOv2."""

from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from safetensors.torch import save_file
from torch import nn
from torchmetrics.functional.image.lpips import _LPIPS as torchmetrics_lpips
from torchvision.models import alexnet, vgg16
from torchvision.transforms import v2
from transformers import Dinov2Config, Dinov2Model

from onex_distill.evaluation.scorers.base import identity, load_network
from onex_distill.evaluation.scorers.dinov2 import Dinov2Params
from onex_distill.evaluation.scorers.inception import InceptionParams
from onex_distill.evaluation.scorers.lpips import LpipsParams
from onex_distill.evaluation.scorers.states import convert_pickle
from onex_distill.evaluation.scorers.weights import File, Source
from photographs import photographs
from tiny_scorers import local, seeded, sha256_of

CPU = torch.device("cpu")


class TinyInception(nn.Module):
    """Has what clean-fid takes from the published file: ``layers``, which end in 2048 features."""

    def __init__(self):
        super().__init__()
        convolution = nn.Conv2d(3, 32, 8, stride=8)
        self.layers = nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers((x - 128) / 128)


@pytest.fixture
def inception(tmp_path):
    path = tmp_path / "inception-2015-12-05.pt"
    torch.jit.script(seeded(TinyInception(), 0)).save(path)
    return Source(hub="local", location=str(tmp_path), files=(File(name=path.name, sha256=sha256_of(path)),))


def test_inception_is_clean_fids(tmp_path, inception):
    images = list(photographs().values())
    network = load_network(InceptionParams(name="inception", weights=inception), tmp_path, CPU)
    original, resize = InceptionV3W(str(tmp_path), download=False), build_resizer("clean")
    prepared = torch.stack([torch.from_numpy(resize(np.asarray(image))).permute(2, 0, 1) for image in images])
    with torch.no_grad():
        expected = original(prepared)
    rows = network.features(images, [""] * len(images))["pool"]
    assert rows.shape == (len(images), 2048)
    torch.testing.assert_close(rows, expected, atol=1e-6, rtol=1e-5)


def test_patches_are_centre_crops_at_full_resolution(tmp_path, inception):
    images = [image for image in photographs().values() if min(image.size) >= 299]
    network = load_network(InceptionParams(name="patches", weights=inception, patches=True), tmp_path, CPU)
    crops = torch.stack([v2.functional.pil_to_tensor(v2.functional.center_crop(image, 299)) for image in images])
    with torch.no_grad():
        expected = InceptionV3W(str(tmp_path), download=False)(crops.float())
    torch.testing.assert_close(network.features(images, [""] * len(images))["pool"], expected, atol=1e-6, rtol=1e-5)


def test_a_torchscript_file_is_run_only_when_its_sha256_is_known_and_right(tmp_path, inception):
    unknown = local(tmp_path, "inception-2015-12-05.pt")
    with pytest.raises(ValueError, match="no whole SHA-256"):
        load_network(InceptionParams(name="inception", weights=unknown), tmp_path, CPU)
    path = tmp_path / "inception-2015-12-05.pt"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"has SHA-256 .* remove it and fetch it again"):
        load_network(InceptionParams(name="inception", weights=inception), tmp_path, CPU)


def _lpips(tmp_path, net, seed=0):
    """Random backbones with the real heads of lpips 0.1, and lpips itself with the same."""
    backbone = seeded((alexnet if net == "alex" else vgg16)(weights=None).features, seed)
    original = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
    for layers in (
        original.net.slice1,
        original.net.slice2,
        original.net.slice3,
        original.net.slice4,
        original.net.slice5,
    ):
        layers.load_state_dict({name: backbone.state_dict()[name] for name in layers.state_dict()})
    state = {f"features.{name}": value for name, value in backbone.state_dict().items()}
    save_file(state, tmp_path / "backbone.safetensors")
    heads = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth"
    convert_pickle(heads, tmp_path / "heads.safetensors")
    params = LpipsParams(
        name=f"lpips_{net}",
        net=net,
        backbone=local(tmp_path, "backbone.safetensors"),
        heads=local(tmp_path, "heads.safetensors"),
        preparation="lpips256",
    )
    return load_network(params, tmp_path, CPU), original


@pytest.mark.parametrize("net", ["alex", pytest.param("vgg", marks=pytest.mark.slow)])
def test_lpips_of_all_pairs_is_what_lpips_gives_pair_by_pair(tmp_path, net):
    network, original = _lpips(tmp_path, net)
    images = list(photographs().values())[:5]
    captions = ["a", "b", "a", "b", "a"]
    rows = network.features(images, captions)["distance"]
    size = v2.Resize((256, 256), v2.InterpolationMode.BICUBIC)
    prepared = [v2.functional.pil_to_tensor(size(image)).float()[None] / 127.5 - 1 for image in images]
    with torch.no_grad():
        pairs = [(0, 2), (0, 4), (2, 4), (1, 3)]  # of the same caption
        apart = {pair: float(original(prepared[pair[0]], prepared[pair[1]])) for pair in pairs}
    expected = [
        np.mean([apart[0, 2], apart[0, 4]]),
        apart[1, 3],
        np.mean([apart[0, 2], apart[2, 4]]),
        apart[1, 3],
        np.mean([apart[0, 4], apart[2, 4]]),
    ]
    np.testing.assert_allclose(rows.numpy(), expected, rtol=1e-4)
    assert np.std(expected) > 1e-3


def test_a_caption_with_one_image_has_no_diversity(tmp_path):
    network, _ = _lpips(tmp_path, "alex")
    with pytest.raises(ValueError, match="at least two images of each caption"):
        network.features(list(photographs().values())[:3], ["a", "b", "a"])


def test_the_backbone_of_another_net_is_refused(tmp_path):
    network, _ = _lpips(tmp_path, "alex")
    params = network.params.model_copy(update={"net": "vgg"})
    with pytest.raises(ValueError, match="does not hold the weights of vgg"):
        load_network(params, tmp_path, CPU)


def test_dinov2_is_the_first_token_that_transformers_gives(tmp_path):
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=518, patch_size=14)
    model = seeded(Dinov2Model(config), 0)
    model.save_pretrained(tmp_path)
    weights = local(tmp_path, "config.json", "model.safetensors")
    images = list(photographs().values())
    params = Dinov2Params(name="dinov2", weights=weights)
    rows = load_network(params, tmp_path, CPU).features(images, [""] * len(images))["image"]
    steps = [
        v2.Resize((224, 224), v2.InterpolationMode.BICUBIC),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    with torch.no_grad():
        expected = model(torch.stack([v2.Compose(steps)(image) for image in images])).last_hidden_state[:, 0]
    torch.testing.assert_close(rows, expected, atol=1e-5, rtol=1e-5)
    described = identity(params, tmp_path)
    assert described["recipe"] == "square224"
    assert len(described["weights_sha256"]) == 64


def test_lpips_is_torchmetrics_too(tmp_path):
    network, original = _lpips(tmp_path, "alex")
    by_torchmetrics = torchmetrics_lpips(pretrained=True, net="alex", pnet_rand=True).eval()
    by_torchmetrics.net.load_state_dict(original.net.state_dict())
    images = list(photographs().values())[:2]
    size = v2.Resize((256, 256), v2.InterpolationMode.BICUBIC)
    first, second = (v2.functional.pil_to_tensor(size(image)).float()[None] / 127.5 - 1 for image in images)
    with torch.no_grad():
        expected = float(by_torchmetrics(first, second))
    assert network.features(images, ["a", "a"])["distance"].tolist() == pytest.approx([expected] * 2, rel=1e-4)
