import pandas as pd
import torch

from onex_distill.models.prompts import concatenate, read_prompts
from onex_distill.storage.tensor_table import TensorTable

CPU = torch.device("cpu")


def test_rows_come_in_the_order_asked(prompt_tables):
    whole = read_prompts(prompt_tables.prompts, range(4), CPU)
    some = read_prompts(prompt_tables.prompts, torch.tensor([3, 0, 3]), CPU)
    assert torch.equal(some.embeds, whole.embeds[[3, 0, 3]])
    assert torch.equal(some.pooled, whole.pooled[[3, 0, 3]])


def test_different_captions_have_different_embeddings(prompt_tables):
    whole = read_prompts(prompt_tables.prompts, range(4), CPU)
    assert len(whole.pooled.unique(dim=0)) == 4


def test_concatenation_with_an_expanded_prompt(prompts, empty):
    both = concatenate(prompts, empty.expand(2))
    assert len(both) == 5
    assert torch.equal(both[torch.arange(3)].embeds, prompts.embeds)
    assert torch.equal(both.pooled[3:], empty.pooled.repeat(2, 1))


def test_expanding_to_no_rows(prompts, empty):
    assert len(concatenate(prompts, empty.expand(0))) == 3


def test_embeddings_in_half_precision_come_as_float32(tmp_path, prompt_tables):
    whole = read_prompts(prompt_tables.prompts, range(4), CPU)
    columns = {"prompt_embeds": whole.embeds.bfloat16(), "pooled_prompt_embeds": whole.pooled.half()}
    table = TensorTable.write(tmp_path / "half", pd.DataFrame({"i": range(4)}), columns)
    prompts = read_prompts(table, [1, 2], CPU)
    assert torch.equal(prompts.embeds, whole.embeds[1:3].bfloat16().float())
    assert torch.equal(prompts.pooled, whole.pooled[1:3].half().float())
