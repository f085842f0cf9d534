"""CLIP and the scores that are a CLIP: cosines, PickScore, HPSv2, and the aesthetic head on its embeddings.

Shapes: N images, D width of the embeddings.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from onex_distill.evaluation.scorers.base import Images, NetworkParams
from onex_distill.evaluation.scorers.recipes import RecipeName, pil_images, prepare
from onex_distill.evaluation.scorers.states import State, build, read_state, transformers_clip
from onex_distill.evaluation.scorers.weights import Source

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
CONTEXT = 77
AESTHETIC_LAYERS = ("layers.0", "layers.2", "layers.4", "layers.6", "layers.7")


class ClipParams(NetworkParams):
    """A CLIP: ``weights`` is one safetensors file, ``architecture`` config.json and the tokenizer's files.

    ``score`` is the cosine (CLIP score), the cosine times the model's own temperature (PickScore) or times 100 (HPSv2).
    ``prefix`` stands before every caption. ``aesthetic`` adds the row of the linear head on normalised embeddings.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"image", "score", "text"})
    kind: Literal["clip"] = "clip"
    weights: Source
    architecture: Source
    aesthetic: Source | None = None
    preparation: RecipeName = "clip224"
    score: Literal["cosine", "temperature", "percent"] = "cosine"
    prefix: str = ""

    def sources(self) -> Mapping[str, Source]:
        """Weights and architecture."""
        return {"weights": self.weights, "architecture": self.architecture}

    def optional(self) -> Mapping[str, Source]:
        """The aesthetic head."""
        return {"aesthetic": self.aesthetic} if self.aesthetic else {}

    def recipe(self) -> str:
        """The named recipe."""
        return self.preparation

    def open(self, folders: Mapping[str, Path], device: torch.device) -> "Clip":
        """The model, its tokenizer and, where its file is there, the aesthetic head."""
        path = folders["weights"] / self.weights.files[0].name
        config = CLIPConfig.from_dict(json.loads((folders["architecture"] / "config.json").read_text()))
        model = build(CLIPModel, config, transformers_clip(read_state(path)), path).to(device)
        tokenizer = CLIPTokenizer.from_pretrained(folders["architecture"], local_files_only=True)
        head = None
        if self.aesthetic and "aesthetic" in folders:
            head = aesthetic_map(read_state(folders["aesthetic"] / self.aesthetic.files[0].name))
        return Clip(self, model, tokenizer, head)


class Clip:
    """A loaded CLIP."""

    def __init__(self, params: ClipParams, model: Any, tokenizer: Any, head: tuple[Tensor, Tensor] | None) -> None:
        self.params, self.model, self.tokenizer, self.head = params, model, tokenizer, head
        self.scale = {
            "cosine": 1.0,
            "temperature": float(model.logit_scale.exp()),
            "percent": 100.0,
        }[params.score]

    @torch.no_grad()
    def features(self, images: Images, captions: Sequence[str]) -> dict[str, Tensor]:
        """``image`` and ``text`` embeddings of length 1 (N, D), ``score`` (N,); with its head ``aesthetic`` (N,)."""
        embedded = self.images(images)
        written = list(dict.fromkeys(captions))  # a caption is read once, however many images it has
        texts = self.texts(written)[[written.index(caption) for caption in captions]]
        rows = {"image": embedded, "text": texts, "score": self.scale * (embedded * texts).sum(1)}
        if self.head:
            weight, bias = self.head
            rows["aesthetic"] = (embedded.double() @ weight + bias).float()
        return rows

    @torch.no_grad()
    def images(self, images: Images) -> Tensor:
        """Embeddings of images, of length 1 (N, D)."""
        pixels = standardised(prepare(self.params.preparation, pil_images(images)), MEAN, STD)
        embedded = self.model.get_image_features(pixel_values=pixels.to(self.model.device)).pooler_output
        return normalize(embedded.float(), dim=-1).cpu()

    @torch.no_grad()
    def texts(self, captions: Sequence[str]) -> Tensor:
        """Embeddings of captions behind the prefix, of length 1 (N, D); words beyond 77 tokens are cut."""
        written = [self.params.prefix + caption for caption in captions]
        tokens = self.tokenizer(written, padding=True, truncation=True, max_length=CONTEXT, return_tensors="pt")
        embedded = self.model.get_text_features(**tokens.to(self.model.device)).pooler_output
        return normalize(embedded.float(), dim=-1).cpu()


def standardised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels (N, 3, S, S) in [0, 255] with the mean and deviation that a network was trained on, both in [0, 1]."""
    shape = (1, 3, 1, 1)
    return (pixels / 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)


def aesthetic_map(state: State) -> tuple[Tensor, Tensor]:
    """The head's five layers as one affine map in float64, (D,) and (): there is no activation between them.

    Raises ValueError for another head.
    """
    missing = [f"{name}.weight" for name in AESTHETIC_LAYERS if f"{name}.weight" not in state]
    if missing:
        raise ValueError(f"the aesthetic head has no {missing[0]}; take sac+logos+ava1-l14-linearMSE")
    weight, bias = (
        torch.eye(state["layers.0.weight"].shape[1], dtype=torch.float64),
        torch.zeros(1, dtype=torch.float64),
    )
    for name in AESTHETIC_LAYERS:
        layer = state[f"{name}.weight"].double()
        weight, bias = layer @ weight, layer @ bias.expand(layer.shape[1]) + state[f"{name}.bias"].double()
    return weight[0], bias[0]
