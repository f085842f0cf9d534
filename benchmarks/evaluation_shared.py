"""The benchmark's table from shared features: every image is decoded once and passes each network once."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from evaluation_inputs import CLIPS
from onex_distill.evaluation.scorers.base import FeatureNetwork, NetworkParams, load_network
from onex_distill.evaluation.scorers.clip import ClipParams
from onex_distill.evaluation.scorers.dinov2 import Dinov2Params
from onex_distill.evaluation.scorers.inception import InceptionParams
from onex_distill.evaluation.scorers.lpips import LpipsParams
from onex_distill.evaluation.scorers.states import convert_pickle
from onex_distill.evaluation.scorers.weights import File, MissingScorer, Source
from onex_distill.metrics.distances import frechet_distance
from onex_distill.metrics.frechet import frechet_at_infinity
from onex_distill.metrics.kernels import cmmd, kid
from onex_distill.metrics.manifolds import precision_recall
from onex_distill.metrics.vendi import vendi_score
from onex_distill.storage.files import sha256_of

Rows = dict[str, Tensor]
FEATURES = 16
"""Of so few images only the first features of a row are compared; with all, covariances have no full rank."""


def build_table(root: Path, reference: str, methods: Sequence[str], captions: list[str]) -> dict[str, dict[str, float]]:
    """A row per method."""
    networks = {params.name: _loaded(params, root) for params in _networks(root)}
    per_caption = captions.count(captions[0])
    rows = {name: _rows(root / name, networks, captions, per_caption) for name in (reference, *methods)}
    return {name: {**_scores(rows[name]), **_distances(rows[name], rows[reference])} for name in methods}


def _networks(root: Path) -> list[NetworkParams]:
    import lpips

    def local(folder: Path, *names: str) -> Source:
        return Source(hub="local", location=str(folder), files=tuple(File(name=name) for name in names))

    inception = "inception-2015-12-05.pt"
    file = File(name=inception, sha256=sha256_of(root / inception))
    weights = Source(hub="local", location=str(root), files=(file,))
    convert_pickle(Path(lpips.__file__).parent / "weights/v0.1/alex.pth", root / "heads.safetensors")
    head = local(root, "aesthetic.safetensors")
    clips = [
        ClipParams(
            name=name,
            weights=local(root / name, "model.safetensors"),
            architecture=local(root / name, "config.json", "vocab.json", "merges.txt"),
            aesthetic=head if name == "clip" else None,
            preparation="clip336" if size == 336 else "clip224",
            score="temperature" if name == "pick_score" else "cosine",
        )
        for name, size in CLIPS.items()
    ]
    backbone = local(root, "alexnet.safetensors")
    return [
        InceptionParams(name="inception", weights=weights),
        InceptionParams(name="patches", weights=weights, patches=True),
        *clips,
        Dinov2Params(name="dinov2", weights=local(root / "dinov2", "config.json", "model.safetensors")),
        LpipsParams(name="lpips", net="alex", backbone=backbone, heads=local(root, "heads.safetensors")),
    ]


def _loaded(params: NetworkParams, root: Path) -> FeatureNetwork:
    network = load_network(params, root, torch.device("cpu"))
    if isinstance(network, MissingScorer):
        raise ValueError(network.reason)
    return network


def _rows(folder: Path, networks: dict[str, FeatureNetwork], captions: list[str], batch: int) -> dict[str, Rows]:
    """Rows of every network for all images of a folder."""
    paths, found = sorted(folder.iterdir()), dict[str, list[Rows]]()
    for start in range(0, len(paths), batch):
        images = [Image.open(path).convert("RGB") for path in paths[start : start + batch]]
        for name, network in networks.items():
            found.setdefault(name, []).append(network.features(images, captions[start : start + batch]))
    return {name: {key: torch.cat([part[key] for part in parts]) for key in parts[0]} for name, parts in found.items()}


def _scores(rows: dict[str, Rows]) -> dict[str, float]:
    return {
        "clip_score": float(rows["clip"]["score"].mean()),
        "aesthetic": float(rows["clip"]["aesthetic"].mean()),
        "pick_score": float(rows["pick_score"]["score"].mean()),
        "lpips_diversity": float(rows["lpips"]["distance"].mean()),
        "vendi": vendi_score(rows["dinov2"]["image"]),
    }


def _distances(rows: dict[str, Rows], reference: dict[str, Rows]) -> dict[str, float]:
    pool, other_pool = (one["inception"]["pool"][:, :FEATURES] for one in (rows, reference))
    patch, other_patch = (one["patches"]["pool"][:, :FEATURES] for one in (rows, reference))
    image, other_image = (one["dinov2"]["image"][:, :FEATURES] for one in (rows, reference))
    precision, recall = precision_recall(pool, other_pool, 3)
    return {
        "fid": frechet_distance(pool, other_pool),
        "patch_fid": frechet_distance(patch, other_patch),
        "kid": kid(pool, other_pool, seed=0),
        "precision": precision,
        "recall": recall,
        "cmmd": cmmd(rows["clip336"]["image"], reference["clip336"]["image"]),
        "dinov2_distance": frechet_distance(image, other_image),
        "dinov2_infinity": frechet_at_infinity(image, other_image, seed=0),
    }
