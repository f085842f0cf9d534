import json

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from onex_distill.engine.randomness import seeded
from onex_distill.pretraining.architecture import build_tokenizers, build_transformer
from support import in_aligned_memory


@pytest.fixture(scope="module")
def tokenizers(words):
    return build_tokenizers(words, max_tokens=6)


def pieces(tokenizer, text: str) -> list[int]:
    """Token ids without the special ones."""
    return tokenizer(text, add_special_tokens=False).input_ids


def test_the_folder_opens_with_plain_diffusers_and_makes_an_image(tiny_teacher_folder):
    index = json.loads((tiny_teacher_folder / "model_index.json").read_text())
    libraries = {value[0] for value in index.values() if isinstance(value, list)}
    assert libraries <= {"diffusers", "transformers", None}
    pipeline = StableDiffusion3Pipeline.from_pretrained(tiny_teacher_folder)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("the red solid circle", num_inference_steps=2, height=32, width=32, max_sequence_length=6).images[
        0
    ]
    assert image.size == (32, 32)


def test_the_reloaded_folder_computes_the_same(tiny_teacher, tiny_teacher_folder):
    loaded = in_aligned_memory(StableDiffusion3Pipeline.from_pretrained(tiny_teacher_folder))
    loaded.set_progress_bar_config(disable=True)
    outputs = [
        pipeline(
            "a hollow blue square",
            num_inference_steps=2,
            max_sequence_length=6,
            generator=torch.Generator().manual_seed(3),
            output_type="latent",
        ).images
        for pipeline in (tiny_teacher, loaded)
    ]
    assert torch.equal(*outputs)


@pytest.mark.parametrize("which", range(3))
def test_every_given_word_is_one_token(tokenizers, words, which):
    tokens = [pieces(tokenizers[which], word) for word in words]
    assert all(len(token) == 1 for token in tokens)
    assert len({token[0] for token in tokens}) == len(words)


@pytest.mark.parametrize("which", range(3))
def test_unknown_words_fall_apart(tokenizers, which):
    tokenizer = tokenizers[which]
    assert len(pieces(tokenizer, "zebra")) > 1
    assert tokenizer.decode(pieces(tokenizer, "zebra")).replace(" ", "") == "zebra"


@pytest.mark.parametrize("which", range(2))
@pytest.mark.parametrize("text", ["red, circle!", "a 'red' circle?", "Circle; 7 - #", "naïve ☃ circle"])
def test_nothing_ends_the_text_early(tokenizers, which, text):
    tokenizer = tokenizers[which]
    ids = tokenizer(text).input_ids
    assert ids.index(tokenizer.eos_token_id) == len(ids) - 1


@pytest.mark.parametrize("which", range(3))
def test_texts_are_padded_and_cut_to_the_limit(tokenizers, which):
    texts = ["red", "a red solid circle that is red solid red circle"]
    ids = tokenizers[which](texts, padding="max_length", max_length=6, truncation=True).input_ids
    assert [len(row) for row in ids] == [6, 6]


def test_the_same_words_always_get_the_same_ids(words):
    """Encoders resumed or loaded in another process would otherwise read other words."""
    builds = [build_tokenizers(words, max_tokens=6) for _ in range(8)]
    ids = [[pieces(tokenizer, word) for tokenizer in build for word in [*words, "zebra"]] for build in builds]
    assert all(build == ids[0] for build in ids)


def test_seeded_fixes_weights_and_leaves_the_global_generator(architecture):
    torch.manual_seed(9)
    expected = torch.rand(2)
    torch.manual_seed(9)
    states = []
    for seed in (1, 1, 2):
        with seeded(seed):
            states.append(build_transformer(architecture).proj_out.weight)
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
