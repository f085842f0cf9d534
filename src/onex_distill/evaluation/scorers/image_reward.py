"""ImageReward: a BLIP whose text reads the image, and a linear reward on its first token.

Shapes: N images, L tokens, D width.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from transformers import BertTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from onex_distill.evaluation.scorers.base import Images, NetworkParams
from onex_distill.evaluation.scorers.clip import MEAN, STD, standardised
from onex_distill.evaluation.scorers.recipes import pil_images, prepare
from onex_distill.evaluation.scorers.states import State, build, read_state, transformers_blip
from onex_distill.evaluation.scorers.weights import Source

REWARD_MEAN, REWARD_STD = 0.16717362830052426, 1.0333394966054072
REWARD_LAYERS = ("mlp.layers.0", "mlp.layers.2", "mlp.layers.4", "mlp.layers.6", "mlp.layers.7")
CONTEXT = 35
HEAD_WIDTH = 64


class ImageRewardParams(NetworkParams):
    """ImageReward.pt as safetensors in its original names, and the tokenizer of BERT (uncased)."""

    gives: ClassVar[frozenset[str]] = frozenset({"score"})
    kind: Literal["image_reward"] = "image_reward"
    weights: Source
    tokenizer: Source

    def sources(self) -> Mapping[str, Source]:
        """Weights and tokenizer."""
        return {"weights": self.weights, "tokenizer": self.tokenizer}

    def recipe(self) -> str:
        """CLIP's preparation is BLIP's too."""
        return "clip224"

    def open(self, folders: Mapping[str, Path], device: torch.device) -> "ImageReward":
        """The model in the architecture that its tensors' shapes give."""
        path = folders["weights"] / self.weights.files[0].name
        state = read_state(path)
        absent = [name for name in REWARD_LAYERS if f"{name}.weight" not in state]
        if absent:
            raise ValueError(f"{path} has no {absent[0]}.weight; take the weights of ImageReward v1.0")
        tokenizer = BertTokenizer.from_pretrained(folders["tokenizer"], local_files_only=True)
        return ImageReward(state, path, tokenizer, device)


class ImageReward:
    """The loaded network."""

    def __init__(self, state: State, path: Path, tokenizer: Any, device: torch.device) -> None:
        self.tokenizer, self.device = tokenizer, device
        self.reward = [(state[f"{name}.weight"].to(device), state[f"{name}.bias"].to(device)) for name in REWARD_LAYERS]
        blip = transformers_blip(state)
        vision, text = (_below(blip, prefix) for prefix in ("vision_model.", "text_encoder."))
        self.vision = build(BlipVisionModel, _vision_config(vision), vision, path).to(device)
        # the decoder's flag only brings the layers that read the image; it is not set when the model is called
        self.text = build(BlipTextModel, _text_config(text), text, path, add_pooling_layer=False).to(device)

    @torch.no_grad()
    def features(self, images: Images, captions: Sequence[str]) -> dict[str, Tensor]:
        """``score`` (N,); words beyond 35 tokens are cut."""
        pixels = standardised(prepare("clip224", pil_images(images)), MEAN, STD).to(self.device)
        seen = self.vision(pixel_values=pixels).last_hidden_state
        tokens = self.tokenizer(list(captions), padding=True, truncation=True, max_length=CONTEXT, return_tensors="pt")
        read = self.text(
            input_ids=tokens.input_ids.to(self.device),
            attention_mask=tokens.attention_mask.to(self.device),
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=self.device),
        ).last_hidden_state[:, 0]
        for weight, bias in self.reward:
            read = read @ weight.T + bias
        return {"score": ((read[:, 0] - REWARD_MEAN) / REWARD_STD).float().cpu()}


def _below(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _vision_config(state: State) -> BlipVisionConfig:
    width, _, patch, _ = state["embeddings.patch_embedding.weight"].shape
    side = round((state["embeddings.position_embedding"].shape[1] - 1) ** 0.5)
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=state["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_layers(state, "encoder.layers."),
        num_attention_heads=width // HEAD_WIDTH,
        patch_size=patch,
        image_size=side * patch,
        layer_norm_eps=1e-6,
    )


def _text_config(state: State) -> BlipTextConfig:
    words, width = state["embeddings.word_embeddings.weight"].shape
    return BlipTextConfig(
        vocab_size=words,
        hidden_size=width,
        encoder_hidden_size=state["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        intermediate_size=state["encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=_layers(state, "encoder.layer."),
        num_attention_heads=width // HEAD_WIDTH,
        max_position_embeddings=state["embeddings.position_embeddings.weight"].shape[0],
        is_decoder=True,
    )


def _layers(state: State, prefix: str) -> int:
    return 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in state if name.startswith(prefix))
