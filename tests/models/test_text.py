import logging

import pytest
import torch

from onex_distill.models.text import count_truncated, encode_prompts

TEXTS = ["the red solid circle", "a hollow blue square", "cross"]


@pytest.mark.parametrize("max_sequence_length", [6, 9])
def test_equals_the_pipelines_own_encoding(tiny_teacher, max_sequence_length):
    embeds, pooled = encode_prompts(tiny_teacher, TEXTS, max_sequence_length)
    with torch.no_grad():
        expected = tiny_teacher.encode_prompt(
            TEXTS, None, None, do_classifier_free_guidance=False, max_sequence_length=max_sequence_length
        )
    assert torch.equal(embeds, expected[0])
    assert torch.equal(pooled, expected[2])
    assert embeds.shape == (3, 6 + max_sequence_length, 16)


def test_batching_does_not_matter(tiny_teacher):
    whole = encode_prompts(tiny_teacher, TEXTS, 6)
    batched = encode_prompts(tiny_teacher, TEXTS, 6, batch_size=2)
    for together, apart in zip(whole, batched, strict=True):
        torch.testing.assert_close(together, apart)


def test_no_gradient_is_kept(tiny_teacher):
    assert not any(tensor.requires_grad for tensor in encode_prompts(tiny_teacher, TEXTS[:1], 6))


def test_captions_that_lose_words_are_counted_with_one_warning(tiny_teacher, caplog):
    texts = [*TEXTS, "a red solid circle in blue", "a picture of a solid red circle"]
    with caplog.at_level(logging.WARNING):
        assert count_truncated(tiny_teacher, texts, 6) == 2
    own = [record for record in caplog.records if record.name == "onex_distill.models.text"]
    assert [record.getMessage() for record in own] == [
        "2 of 5 captions are longer than the token limit (6 CLIP, 6 T5) and lose their last words."
    ]


def test_captions_that_fit_are_not_warned_about(tiny_teacher, caplog):
    with caplog.at_level(logging.WARNING):
        assert count_truncated(tiny_teacher, TEXTS, 6) == 0
    assert not caplog.records


def test_a_short_t5_limit_alone_counts(tiny_teacher):
    assert count_truncated(tiny_teacher, TEXTS, 3) == 2


def test_a_teacher_without_t5_is_counted_by_clip_alone(tiny_teacher):
    tiny_teacher.register_modules(tokenizer_3=None, text_encoder_3=None)
    assert count_truncated(tiny_teacher, TEXTS, 3) == 0
