"""A judge of propositions: a BLIP that answers questions, by the probability of yes.

Shapes: N images, Q questions of an item, L tokens.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from transformers import BertTokenizer, BlipConfig, BlipForQuestionAnswering

from onex_distill.evaluation.scorers.base import Images, NetworkParams
from onex_distill.evaluation.scorers.clip import MEAN, STD, standardised
from onex_distill.evaluation.scorers.recipes import pil_images, prepare
from onex_distill.evaluation.scorers.states import build, read_state
from onex_distill.evaluation.scorers.weights import Source
from onex_distill.metrics.dpg import by_item, read_propositions

PROPOSITIONS = "propositions.csv"
"""The note with the questions."""
UNASKED = -1.0
"""What stands in place of an answer where an item has fewer questions than another."""


class VqaParams(NetworkParams):
    """A BLIP for question answering, and the csv of propositions (one file) whose texts are the captions.

    ``weights`` has config.json and one safetensors file, ``tokenizer`` the vocabulary of its BERT. The judge decides
    the numbers: its name belongs to the column.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"yes"})
    kind: Literal["vqa"] = "vqa"
    weights: Source
    tokenizer: Source
    propositions: Source

    def sources(self) -> Mapping[str, Source]:
        """Weights, tokenizer and propositions."""
        return {"weights": self.weights, "tokenizer": self.tokenizer, "propositions": self.propositions}

    def recipe(self) -> str:
        """The whole image to a square of 384."""
        return "square384"

    def notes(self, folders: Mapping[str, Path]) -> Sequence[tuple[str, str]]:
        """The csv of propositions."""
        return ((PROPOSITIONS, (folders["propositions"] / self.propositions.files[0].name).read_text()),)

    def open(self, folders: Mapping[str, Path], device: torch.device) -> "Vqa":
        """The judge and its questions. Raises ValueError for a csv that is not understood."""
        folder = folders["weights"]
        path = folder / next(file.name for file in self.weights.files if file.name.endswith(".safetensors"))
        config = BlipConfig.from_dict(json.loads((folder / "config.json").read_text()))
        model = build(BlipForQuestionAnswering, config, read_state(path), path).to(device)
        tokenizer = BertTokenizer.from_pretrained(folders["tokenizer"], local_files_only=True)
        asked: dict[str, list[str]] = {}
        for found in by_item(read_propositions(folders["propositions"] / self.propositions.files[0].name)).values():
            asked[found[0].text] = [one.question for one in found]
        return Vqa(model, tokenizer, asked)


class Vqa:
    """The loaded judge."""

    def __init__(self, model: Any, tokenizer: Any, asked: Mapping[str, Sequence[str]]) -> None:
        self.model, self.tokenizer, self.asked = model, tokenizer, asked
        self.most = max(map(len, asked.values()))
        self.answers = torch.tensor(tokenizer.convert_tokens_to_ids(["yes", "no"]))

    @torch.no_grad()
    def features(self, images: Images, captions: Sequence[str]) -> dict[str, Tensor]:
        """``yes`` (N, Q): the probability of yes against no to each question of the caption; -1 where there is none.

        An image whose caption is not in the csv is not looked at, and its row is NaN.
        """
        rows = torch.full((len(captions), self.most), UNASKED)
        for place, (image, caption) in enumerate(zip(pil_images(images), captions, strict=True)):
            if caption not in self.asked:
                rows[place] = torch.nan
                continue
            pixels = standardised(prepare("square384", [image]), MEAN, STD).to(self.model.device)
            questions = list(self.asked[caption])
            seen = self.model.vision_model(pixel_values=pixels).last_hidden_state
            rows[place, : len(questions)] = self._yes(seen, questions)
        return {"yes": rows}

    def _yes(self, seen: Tensor, questions: list[str]) -> Tensor:
        """The probability of yes (Q,) from the first word of the answer to each question about one image."""
        tokens = self.tokenizer(questions, padding=True, truncation=True, return_tensors="pt").to(seen.device)
        seen = seen.expand(len(questions), -1, -1)
        whole = torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device)
        read = self.model.text_encoder(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=whole,
        ).last_hidden_state
        logits = self.model.text_decoder(
            input_ids=torch.full((len(questions), 1), self.model.decoder_start_token_id, device=seen.device),
            encoder_hidden_states=read,
            encoder_attention_mask=tokens.attention_mask,
        ).logits[:, -1]
        return logits[:, self.answers.to(logits.device)].float().softmax(-1)[:, 0].cpu()
