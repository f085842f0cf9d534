"""The benchmark's table from metric libraries called one by one, each of which reads the images anew."""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import lpips
import numpy as np
import torch
from cleanfid.fid import fid_from_feats, get_folder_features, kernel_distance
from cleanfid.inception_torchscript import InceptionV3W
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch_fidelity.metric_prc import prc_features_to_metric
from transformers import (
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Model,
)

from evaluation_inputs import AESTHETIC, CLIPS

FEATURES, POINTS, CMMD_SIGMA = 16, 15, 10
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def build_table(root: Path, reference: str, methods: Sequence[str], captions: list[str]) -> dict[str, dict[str, float]]:
    """A row per method."""
    return {
        method: {metric: compute(root, method, reference, captions) for metric, compute in METRICS.items()}
        for method in methods
    }


def _pool(root: Path, name: str, patches: bool = False) -> Any:
    """clean-fid's features of a folder."""
    network = InceptionV3W(str(root), download=False)
    crop = _centre if patches else None
    features = get_folder_features(
        str(root / name),
        network,
        num_workers=0,
        batch_size=4,
        device=torch.device("cpu"),
        verbose=False,
        custom_image_tranform=crop,
    )
    return features[:, :FEATURES].astype(np.float64)


def _centre(image: Any) -> Any:
    top, left = (round((side - 299) / 2) for side in image.shape[:2])
    return image[top : top + 299, left : left + 299]


def _fid(root: Path, method: str, reference: str, captions: list[str]) -> float:
    return float(fid_from_feats(_pool(root, method), _pool(root, reference)))


def _patch_fid(root: Path, method: str, reference: str, captions: list[str]) -> float:
    return float(fid_from_feats(_pool(root, method, patches=True), _pool(root, reference, patches=True)))


def _kid(root: Path, method: str, reference: str, captions: list[str]) -> float:
    return kernel_distance(_pool(root, method), _pool(root, reference))


def _precision_recall(root: Path, method: str, reference: str, captions: list[str]) -> float:
    features = (torch.from_numpy(_pool(root, name)) for name in (method, reference))
    return float(prc_features_to_metric(*features, prc_neighborhood=3, verbose=False)["precision"])


@torch.no_grad()
def _clip(root: Path, name: str, method: str) -> tuple[Tensor, Any]:
    """transformers' embeddings of a folder, and the model."""
    model, size = CLIPModel.from_pretrained(root / name).eval(), CLIPS[name]
    process = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    rows = [
        model.get_image_features(**process([Image.open(path).convert("RGB")], return_tensors="pt")).pooler_output
        for path in sorted((root / method).iterdir())
    ]
    return normalize(torch.cat(rows)), model


@torch.no_grad()
def _cosines(root: Path, name: str, method: str, captions: list[str]) -> tuple[float, Any]:
    images, model = _clip(root, name, method)
    tokens = CLIPTokenizer.from_pretrained(root / name)(captions, padding=True, return_tensors="pt")
    texts = normalize(model.get_text_features(**tokens).pooler_output)
    return float((images * texts).sum(1).mean()), model


def _clip_score(root: Path, method: str, reference: str, captions: list[str]) -> float:
    return _cosines(root, "clip", method, captions)[0]


def _pick_score(root: Path, method: str, reference: str, captions: list[str]) -> float:
    cosine, model = _cosines(root, "pick_score", method, captions)
    return cosine * float(model.logit_scale.exp())


@torch.no_grad()
def _aesthetic(root: Path, method: str, reference: str, captions: list[str]) -> float:
    images, _ = _clip(root, "clip", method)
    state = load_file(root / "aesthetic.safetensors")
    for index, entering, leaving in AESTHETIC:
        layer = nn.Linear(entering, leaving)
        layer.load_state_dict({part: state[f"layers.{index}.{part}"] for part in ("weight", "bias")})
        images = layer(images)
    return float(images.mean())


def _cmmd(root: Path, method: str, reference: str, captions: list[str]) -> float:
    x, y = (_clip(root, "clip336", name)[0].double() for name in (method, reference))
    kernels = (torch.exp(-(torch.cdist(a, b) ** 2) / (2 * CMMD_SIGMA**2)).mean() for a, b in ((x, x), (y, y), (x, y)))
    inside, other, across = kernels
    return float(1000 * (inside + other - 2 * across))


@torch.no_grad()
def _dinov2(root: Path, method: str) -> Tensor:
    model = Dinov2Model.from_pretrained(root / "dinov2").eval()
    process = CLIPImageProcessor(size={"height": 224, "width": 224}, do_center_crop=False, **IMAGENET)
    rows = [
        model(**process([Image.open(path).convert("RGB")], return_tensors="pt")).last_hidden_state[:, 0]
        for path in sorted((root / method).iterdir())
    ]
    return torch.cat(rows).double()


def _dinov2_distance(root: Path, method: str, reference: str, captions: list[str]) -> float:
    own, other = (_dinov2(root, name)[:, :FEATURES].numpy() for name in (method, reference))
    return float(fid_from_feats(own, other))


def _dinov2_infinity(root: Path, method: str, reference: str, captions: list[str]) -> float:
    own, other = (_dinov2(root, name)[:, :FEATURES].numpy() for name in (method, reference))
    generator = np.random.default_rng(0)
    sizes = np.linspace(len(own) // 2, len(own), POINTS).astype(int)
    distances = [fid_from_feats(own[generator.permutation(len(own))[:size]], other) for size in sizes]
    return float(np.polyfit(1 / sizes, distances, 1)[1])


def _vendi(root: Path, method: str, reference: str, captions: list[str]) -> float:
    features = normalize(_dinov2(root, method))
    values = torch.linalg.eigvalsh(features @ features.T / len(features)).clamp_min(0)
    return float(torch.special.entr(values).sum().exp())


@torch.no_grad()
def _lpips(root: Path, method: str, reference: str, captions: list[str]) -> float:
    network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    state = {name.removeprefix("features."): value for name, value in load_file(root / "alexnet.safetensors").items()}
    for index in range(1, 6):
        layers = getattr(network.net, f"slice{index}")
        layers.load_state_dict({name: state[name] for name in layers.state_dict()})
    paths, distances = sorted((root / method).iterdir()), []
    for caption in dict.fromkeys(captions):
        members = [path for path, other in zip(paths, captions, strict=True) if other == caption]
        pairs = [network(*map(_for_lpips, pair)) for pair in combinations(members, 2)]
        distances.append(float(torch.cat(pairs).mean()))
    return float(np.mean(distances))


def _for_lpips(path: Path) -> Tensor:
    image = Image.open(path).convert("RGB").resize((512, 512), Image.Resampling.BICUBIC)
    return lpips.im2tensor(np.asarray(image))


METRICS: dict[str, Callable[[Path, str, str, list[str]], float]] = {
    "fid": _fid,
    "patch_fid": _patch_fid,
    "kid": _kid,
    "precision": _precision_recall,
    "clip_score": _clip_score,
    "aesthetic": _aesthetic,
    "pick_score": _pick_score,
    "cmmd": _cmmd,
    "dinov2_distance": _dinov2_distance,
    "dinov2_infinity": _dinov2_infinity,
    "vendi": _vendi,
    "lpips_diversity": _lpips,
}
