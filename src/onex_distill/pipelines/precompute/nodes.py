"""Nodes of the precompute pipeline."""

import pandas as pd
import torch
from diffusers import StableDiffusion3Pipeline

from onex_distill.models.prompts import read_prompts
from onex_distill.models.sampling import sample_rows
from onex_distill.models.text import count_truncated, encode_prompts
from onex_distill.pipelines.precompute.params import EvaluationSetParams, TeacherSamplingParams, TextParams
from onex_distill.storage.prompt_table import build_prompt_table, rows_of_split
from onex_distill.storage.tensor_table import TensorTable


def prepare_prompts(captions: pd.DataFrame) -> pd.DataFrame:
    """Check the captions before anything expensive and give each an id and a split."""
    return build_prompt_table(captions)


def embed_prompts(
    prompts: pd.DataFrame, teacher: StableDiffusion3Pipeline, params: TextParams
) -> tuple[TensorTable, TensorTable]:
    """Embeddings of every caption, and of the empty prompt that guidance needs."""
    texts = prompts["text"].tolist()
    count_truncated(teacher, texts, params.max_sequence_length)
    tables = []
    for index, batch in ((prompts, texts), (pd.DataFrame({"id": ["empty"]}), [""])):
        embeds, pooled = encode_prompts(teacher, batch, params.max_sequence_length, params.batch_size)
        tables.append(TensorTable(index, {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}))
    return tables[0], tables[1]


def plan_evaluation(prompts: pd.DataFrame, params: EvaluationSetParams) -> pd.DataFrame:
    """One row an image to be sampled: ``prompt_row``, ``prompt_id``, ``text``, ``noise_seed``."""
    heldout = rows_of_split(prompts, "heldout")
    order = torch.randperm(len(heldout), generator=torch.Generator().manual_seed(params.seed))
    rows = [heldout[i] for i in order.tolist()[: params.captions] for _ in range(params.images_per_caption)]
    plan = prompts.loc[rows, ["id", "text"]].rename(columns={"id": "prompt_id"})
    plan.insert(0, "prompt_row", rows)
    plan["noise_seed"] = range(params.seed, params.seed + len(rows))
    return plan.reset_index(drop=True)


def sample_teacher(
    teacher: StableDiffusion3Pipeline,
    embeddings: TensorTable,
    empty: TensorTable,
    plan: pd.DataFrame,
    params: TeacherSamplingParams,
) -> TensorTable:
    """The teacher's latents on the evaluation plan; ``seconds`` in the index is the transformer's time an image."""
    return sample_rows(
        teacher.transformer,
        embeddings,
        plan,
        teacher.scheduler.config.shift,
        params.num_inference_steps,
        params.batch_size,
        read_prompts(empty, [0]),
        params.guidance_scale,
    )
