"""The teacher as a folder: each component is loaded where it is needed and nowhere else.

Text encoders are the largest part of Stable Diffusion 3; training and sampling never load them.
"""

import json
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline

from onex_distill.models.checks import check_teacher_folder
from onex_distill.parameters import Params
from onex_distill.storage.model_folder import ModelFolder


class TeacherFolder(Params):
    """A Stable Diffusion 3 folder whose components fit each other."""

    path: Path

    def check(self) -> "TeacherFolder":
        """Raise ValueError with one line when a component is missing, of another kind, or does not fit the others."""
        check_teacher_folder(self.path)
        return self

    @property
    def transformer(self) -> ModelFolder:
        """The velocity network."""
        return self._component("transformer", SD3Transformer2DModel)

    @property
    def autoencoder(self) -> ModelFolder:
        """Pixels to latents and back."""
        return self._component("vae", AutoencoderKL)

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

    def load_text_pipeline(self) -> StableDiffusion3Pipeline:
        """Tokenizers, text encoders and scheduler alone."""
        return self._load(transformer=None, vae=None)

    def load_tokenizers(self) -> StableDiffusion3Pipeline:
        """A pipeline of tokenizers and scheduler alone."""
        return self._load(transformer=None, vae=None, text_encoder=None, text_encoder_2=None, text_encoder_3=None)

    def load(self) -> StableDiffusion3Pipeline:
        """The whole pipeline."""
        return self._load(transformer=self.transformer.load(), vae=self.autoencoder.load())

    def _load(self, **components: object) -> StableDiffusion3Pipeline:
        pipeline = self._folder().load(**components)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _folder(self) -> ModelFolder:
        return ModelFolder(path=self.path, class_name="diffusers.StableDiffusion3Pipeline")

    def _component(self, name: str, kind: type) -> ModelFolder:
        return ModelFolder(path=self.path / name, class_name=f"diffusers.{kind.__name__}")

    def _config(self, name: str) -> dict[str, Any]:
        return json.loads((self.path / name).read_text())
