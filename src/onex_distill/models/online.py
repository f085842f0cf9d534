"""Prompt embeddings that are made when they are asked for, behind the face of a table of tensors.

On disk there is the prompts' index and what to encode them with; nothing of the size of an embedding. The text encoders
are read by the first ``read`` of a process and stay on the device that the settings name, the processor as a rule, so
that the training's device keeps its memory.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusion3Pipeline
from pydantic import PositiveInt, ValidationError
from torch import Tensor

from onex_distill.models.teacher import TeacherFolder
from onex_distill.models.text import encode_prompts
from onex_distill.parameters import Params
from onex_distill.storage.files import write_text
from onex_distill.storage.shards import INDEX_FILE
from onex_distill.storage.tensor_table import ONLINE_FILE, TensorTable

COLUMNS = ["prompt_embeds", "pooled_prompt_embeds"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Encoding(Params):
    """A teacher's text encoders, the numbers they compute in, and where: auto is the accelerator, if there is one."""

    teacher: TeacherFolder
    max_sequence_length: PositiveInt
    dtype: Literal["fp32", "bf16", "fp16"]
    device: Literal["auto", "cpu"]

    def load(self) -> StableDiffusion3Pipeline:
        """Tokenizers and text encoders."""
        device = "cuda" if self.device == "auto" and torch.cuda.is_available() else "cpu"
        return self.teacher.load_text_pipeline(device, DTYPES[self.dtype])


class OnlineEmbeddings(TensorTable):
    """Embeddings of every row of an index, encoded on ``read``; equal to the stored ones of the same batch."""

    def __init__(self, folder: Path) -> None:
        """Open what ``store`` wrote. Raises ValueError when it is damaged."""
        self.folder, self.names = folder, COLUMNS
        try:
            self.encoding = Encoding.model_validate_json((folder / ONLINE_FILE).read_text())
            self.index = pd.read_parquet(folder / INDEX_FILE)
        except (OSError, ValueError, ValidationError) as error:
            raise ValueError(f"{folder} does not describe embeddings; run embed_prompts again") from error
        self._length = len(self.index)
        self._last: tuple[list[int], dict[str, Tensor]] = ([], {})

    @classmethod
    def store(cls, folder: Path, prompts: pd.DataFrame, encoding: Encoding) -> "OnlineEmbeddings":
        """Write an index of prompts and their encoding into a folder, and open it."""
        folder.mkdir(parents=True, exist_ok=True)
        prompts.reset_index(drop=True).to_parquet(folder / INDEX_FILE)
        write_text(folder / ONLINE_FILE, encoding.model_dump_json())
        return cls(folder)

    def rows_where(self, column: str, value: str) -> np.ndarray:
        """Rows whose index holds ``value``."""
        return np.flatnonzero(self.index[column].astype(str) == value)

    def read(self, name: str, rows: Sequence[int] | Tensor | np.ndarray) -> Tensor:
        """The given rows of ``prompt_embeds`` or ``pooled_prompt_embeds``, (len(rows), ...), on the processor."""
        chosen = [int(row) for row in rows]
        if chosen and not (min(chosen) >= 0 and max(chosen) < len(self)):
            raise IndexError(f"rows {min(chosen)} to {max(chosen)} asked of {len(self)} prompts")
        if self._last[0] != chosen or not self._last[1]:
            texts = self.index["text"].iloc[chosen].tolist()
            encoded = encode_prompts(self._pipeline, texts, self.encoding.max_sequence_length)
            self._last = (chosen, dict(zip(COLUMNS, encoded, strict=True)))
        return self._last[1][name]

    @cached_property
    def _pipeline(self) -> StableDiffusion3Pipeline:
        return self.encoding.load()
