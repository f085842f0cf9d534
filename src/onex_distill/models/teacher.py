"""The teacher as a folder: each component is loaded where it is needed and nowhere else.

Text encoders are the largest part of Stable Diffusion 3; training and sampling never load them.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusion3Pipeline

from onex_distill.models.checks import CLASSES, T5, check_teacher_folder, check_vocabularies, components
from onex_distill.parameters import Params
from onex_distill.storage.model_check import check_model
from onex_distill.storage.model_folder import ModelFolder

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")


class TeacherFolder(Params):
    """A Stable Diffusion 3 folder whose components fit each other."""

    path: Path

    def check(self) -> "TeacherFolder":
        """Raise ValueError with one line when a component is missing, of another kind, or does not fit the others."""
        check_teacher_folder(self.path)
        return self

    def absolute(self) -> "TeacherFolder":
        """The same folder by a path that does not depend on where a process was started."""
        return TeacherFolder(path=self.path.absolute())

    def check_weights(self) -> None:
        """Raise ValueError with one line unless every model's weights are whole and every tokenizer opens.

        Headers are read, weights are not.
        """
        for name in ("transformer", "vae", *self._present(TEXT_ENCODERS)):
            check_model(self._component(name))
        check_vocabularies(self.path)
        pipeline = self.load_tokenizers()
        for encoder, name in zip(TEXT_ENCODERS, TOKENIZERS, strict=True):
            if (tokenizer := getattr(pipeline, name)) is None:
                continue
            known = json.loads((self.path / encoder / "config.json").read_text())["vocab_size"]
            if len(tokenizer) > known:
                raise ValueError(
                    f"{self.path / name} knows {len(tokenizer)} tokens and {encoder} only {known}; take both from the "
                    "same model"
                )

    @property
    def transformer(self) -> ModelFolder:
        """The velocity network."""
        return self._component("transformer")

    @property
    def autoencoder(self) -> ModelFolder:
        """Pixels to latents and back."""
        return self._component("vae")

    @property
    def text_encoders(self) -> list[ModelFolder]:
        """The text encoders that are there, one or two of CLIP and T5."""
        return [self._component(name) for name in self._present(TEXT_ENCODERS)]

    @property
    def shift(self) -> float:
        """The schedule's shift s."""
        shift: float = self._config("scheduler/scheduler_config.json")["shift"]
        return shift

    @property
    def num_layers(self) -> int:
        """Transformer blocks."""
        layers: int = self._config("transformer/config.json")["num_layers"]
        return layers

    @property
    def clip_tokens(self) -> int:
        """Tokens of the CLIP part of an embedding."""
        tokens: int = self._config("tokenizer/tokenizer_config.json")["model_max_length"]
        return tokens

    def embedding_bytes(self, max_sequence_length: int) -> int:
        """Bytes of one prompt's embeddings in float32."""
        config = self._config("transformer/config.json")
        tokens = self.clip_tokens + max_sequence_length
        return 4 * (tokens * int(config["joint_attention_dim"]) + int(config["pooled_projection_dim"]))

    def load_text_pipeline(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> StableDiffusion3Pipeline:
        """Tokenizers, text encoders and scheduler alone, on a device.

        A teacher without T5 has its transformer too, without weights: its text width is that of the zeros which stand
        for T5.
        """
        encoders = {name: self._component(name).load(dtype=dtype).eval() for name in self._present(TEXT_ENCODERS)}
        pipeline = self._load(**{**dict.fromkeys(TEXT_ENCODERS), **encoders}, transformer=None, vae=None).to(device)
        if pipeline.text_encoder_3 is None:
            pipeline.register_modules(transformer=self.transformer.build())
        return pipeline

    def load_tokenizers(self) -> StableDiffusion3Pipeline:
        """A pipeline of tokenizers and scheduler alone."""
        return self._load(**dict.fromkeys(TEXT_ENCODERS), transformer=None, vae=None)

    def load(self) -> StableDiffusion3Pipeline:
        """The whole pipeline, in float32."""
        models = ("transformer", "vae", *self._present(TEXT_ENCODERS))
        return self._load(**{name: self._component(name).load().eval() for name in models})

    def _load(self, **models: object) -> StableDiffusion3Pipeline:
        """The pipeline of these models; tokenizers and scheduler come from the folder."""
        folder = ModelFolder(path=self.path, class_name="diffusers.StableDiffusion3Pipeline")
        absent = {name: None for name in T5 if not self._present((name,))}  # diffusers wants these passed too
        pipeline = folder.load(**{**absent, **models}, variant=None)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _present(self, names: tuple[str, ...]) -> list[str]:
        return [name for name in names if name in components(self.path)]

    def _component(self, name: str) -> ModelFolder:
        return ModelFolder(path=self.path / name, class_name=CLASSES[name][0])

    def _config(self, name: str) -> dict[str, Any]:
        return json.loads((self.path / name).read_text())
