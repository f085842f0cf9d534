"""Prompt embeddings over ranks, in whole shards (engine.tables)."""

from collections.abc import Mapping
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor

from onex_distill.engine.job import Job
from onex_distill.engine.run import Run
from onex_distill.engine.tables import write_table
from onex_distill.models.online import DTYPES
from onex_distill.models.teacher import TeacherFolder
from onex_distill.models.text import encode_prompts
from onex_distill.storage.frame import FrameFile


class EmbeddingJob(Job):
    """Embeddings of every text of ``prompts``: a table ``embeddings`` with the prompts as its index."""

    teacher: TeacherFolder
    prompts: FrameFile
    max_sequence_length: PositiveInt
    dtype: Literal["fp32", "bf16", "fp16"]
    batch_size: PositiveInt

    def run(self, run: Run) -> None:
        """Write the table; the text encoders are in memory for no longer than that."""
        pipeline = self.teacher.load_text_pipeline(run.ranks.device, DTYPES[self.dtype])
        prompts = self.prompts.read()
        texts = prompts["text"]

        def embed(rows: range) -> Mapping[str, Tensor]:
            batch = texts.iloc[rows.start : rows.stop].tolist()
            embeds, pooled = encode_prompts(pipeline, batch, self.max_sequence_length)
            return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

        write_table(run, "embeddings", prompts, self.batch_size, embed)
