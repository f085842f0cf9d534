"""HPSv3 (Ma et al., 2025): a Qwen2-VL that is asked to rate an image, and a head on the hidden state of one token.

Shapes: L tokens, D width, P patches.
"""

import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Qwen2VLConfig, Qwen2VLModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from onex_distill.evaluation.scorers.base import Images, NetworkParams
from onex_distill.evaluation.scorers.recipes import pil_images
from onex_distill.evaluation.scorers.states import State, build, read_state
from onex_distill.evaluation.scorers.weights import Source

PIXELS = 256 * 28 * 28
REWARD, IMAGE = "<|Reward|>", "<|image_pad|>"
BEFORE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
AFTER = "<|im_end|>\n<|im_start|>assistant\n"
QUESTION, RATING = "INSTRUCTION", "prompt_with_special_token"
"""The texts around a caption, by their names in the published source."""
LAYERS = ("0", "3", "5")


class HpsV3Params(NetworkParams):
    """HPSv3.safetensors in its original names, and config.json and tokenizer.json of Qwen2-VL-7B-Instruct.

    ``question`` is the published ``hpsv3/dataset/data_collator_qwen.py``: the texts around a caption are read from it,
    nothing in it is run. ``on_cpu`` allows a CPU, which takes minutes per image at the published size.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"score"})
    kind: Literal["hps_v3"] = "hps_v3"
    weights: Source
    architecture: Source
    question: Source
    on_cpu: bool = False

    def runs_on_cpu(self) -> bool:
        """Only when asked to."""
        return self.on_cpu

    def sources(self) -> Mapping[str, Source]:
        """Weights, architecture and question."""
        return {"weights": self.weights, "architecture": self.architecture, "question": self.question}

    def recipe(self) -> str:
        """To an area of about 448 x 448 pixels with sides that are multiples of 28, by PIL's bicubic filter."""
        return "area448"

    def open(self, folders: Mapping[str, Path], device: torch.device) -> "HpsV3":
        """The model (bf16 on a GPU, as published) and its head. Raises ValueError for other weights or another text."""
        path = folders["weights"] / self.weights.files[0].name
        state, dtype = read_state(path), torch.float32 if device.type == "cpu" else torch.bfloat16
        missing = [name for name in LAYERS if f"rm_head.{name}.weight" not in state]
        if missing:
            raise ValueError(f"{path} has no rm_head.{missing[0]}.weight; take HPSv3.safetensors")
        config = Qwen2VLConfig.from_dict(json.loads((folders["architecture"] / "config.json").read_text()))
        config.text_config.vocab_size = len(state["model.embed_tokens.weight"])
        model = build(Qwen2VLModel, config, _renamed(state), path, dtype=dtype).to(device)
        tokenizer = Tokenizer.from_file(str(folders["architecture"] / "tokenizer.json"))
        tokenizer.add_special_tokens([REWARD])
        texts = read_texts(folders["question"] / self.question.files[0].name)
        return HpsV3(model, _head(state).to(device), tokenizer, texts)


class HpsV3:
    """The loaded network."""

    def __init__(self, model: Any, head: nn.Sequential, tokenizer: Any, texts: tuple[str, str]) -> None:
        self.model, self.head, self.tokenizer, self.texts = model, head, tokenizer, texts
        vision = model.config.vision_config
        self.merged = vision.spatial_merge_size**2
        self.process = Qwen2VLImageProcessorPil(
            size={"shortest_edge": PIXELS, "longest_edge": PIXELS},
            patch_size=vision.patch_size,
            merge_size=vision.spatial_merge_size,
            temporal_patch_size=vision.temporal_patch_size,
        )

    def features(self, images: Images, captions: Sequence[str]) -> dict[str, Tensor]:
        """``score`` (N,): the mean of the two numbers, mean and deviation, that the head gives."""
        scores = [self._score(image, text) for image, text in zip(pil_images(images), captions, strict=True)]
        return {"score": torch.stack(scores)}

    @torch.no_grad()
    def _score(self, image: Image.Image, caption: str) -> Tensor:
        """The original counts tokens along all three axes of the positions, those of the image too."""
        device = self.model.device
        seen = self.process([image], return_tensors="pt").to(device)
        count = int(seen["image_grid_thw"].prod()) // self.merged
        question, rating = self.texts
        asked = question.replace("{text_prompt}", caption) + rating
        text = f"{BEFORE}{IMAGE * count}<|vision_end|>{asked}{AFTER}"
        tokens = torch.tensor([self.tokenizer.encode(text, add_special_tokens=False).ids], device=device)
        hidden = self.model(
            input_ids=tokens,
            position_ids=torch.arange(tokens.shape[1], device=device).expand(3, 1, -1),
            pixel_values=seen["pixel_values"].to(self.model.dtype),
            image_grid_thw=seen["image_grid_thw"],
            use_cache=False,
        ).last_hidden_state[0]
        place = (tokens[0] == self.tokenizer.token_to_id(REWARD)).nonzero()[-1, 0]
        score: Tensor = self.head(hidden[place].float())[0].cpu()
        return score


def read_texts(path: Path) -> tuple[str, str]:
    """The question, with ``{text_prompt}`` for the caption, and the request for a rating, from the published source.

    Raises ValueError for another file.
    """
    try:
        statements = ast.parse(path.read_text(encoding="utf-8")).body
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no source of Python ({error}); copy hpsv3's data_collator_qwen.py") from error
    found: dict[str, str] = {}
    for one in statements:
        if isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name) and isinstance(one.value, ast.Constant):
            found[one.targets[0].id] = str(one.value.value)
    texts = found.get(QUESTION, ""), found.get(RATING, "")
    if "{text_prompt}" not in texts[0] or texts[1].count(REWARD) != 1:
        raise ValueError(f"{path} does not hold HPSv3's {QUESTION} and {RATING}; copy hpsv3's data_collator_qwen.py")
    return texts


def _head(state: State) -> nn.Sequential:
    layers: list[nn.Module] = []
    for name in LAYERS:
        weight = state[f"rm_head.{name}.weight"].float()
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": state[f"rm_head.{name}.bias"].float()})
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).requires_grad_(False)


def _renamed(state: State) -> State:
    """In the names of today's transformers; neither head is among them."""
    texts = {
        f"language_model.{name.removeprefix('model.')}": one for name, one in state.items() if name[:6] == "model."
    }
    return {**texts, **{name: one for name, one in state.items() if name.startswith("visual.")}}
