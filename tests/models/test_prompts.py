import torch

from onex_distill.models.prompts import concatenate, read_prompts


def test_rows_come_in_the_order_asked(prompt_tables):
    whole = read_prompts(prompt_tables.prompts, range(4))
    some = read_prompts(prompt_tables.prompts, torch.tensor([3, 0, 3]))
    assert torch.equal(some.embeds, whole.embeds[[3, 0, 3]])
    assert torch.equal(some.pooled, whole.pooled[[3, 0, 3]])


def test_different_captions_have_different_embeddings(prompt_tables):
    whole = read_prompts(prompt_tables.prompts, range(4))
    assert len(whole.pooled.unique(dim=0)) == 4


def test_concatenation_with_an_expanded_prompt(prompts, empty):
    both = concatenate(prompts, empty.expand(2))
    assert len(both) == 5
    assert torch.equal(both[torch.arange(3)].embeds, prompts.embeds)
    assert torch.equal(both.pooled[3:], empty.pooled.repeat(2, 1))


def test_expanding_to_no_rows(prompts, empty):
    assert len(concatenate(prompts, empty.expand(0))) == 3
