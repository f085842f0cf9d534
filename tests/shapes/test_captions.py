import pytest
import torch

from onex_distill.shapes.captions import FILL_WORDS, TEMPLATES, all_captions, named_attributes, read_caption
from onex_distill.shapes.world import COLOURS, FILLS, NAMED, SHAPES
from onex_distill.storage.prompt_table import build_prompt_table, split_of

COMBINATIONS = len(COLOURS) * len(SHAPES) * len(FILLS)


@pytest.fixture(scope="module")
def captions():
    return all_captions()


def test_every_caption_is_a_sentence_of_its_own(captions):
    assert len(captions) == COMBINATIONS * len(TEMPLATES) * 2
    assert captions["text"].is_unique
    assert captions["id"].is_unique


def test_every_caption_reads_back_as_its_attributes(captions):
    read = [read_caption(text) for text in captions["text"]]
    assert read == captions[list(NAMED)].to_dict(orient="records")


def test_all_captions_read_back_as_tensors(captions):
    named = named_attributes(captions["text"].tolist())
    for name in NAMED:
        assert torch.equal(named[name], torch.tensor(captions[name].to_numpy()))


def test_splits_follow_the_text_and_share_no_sentence(captions):
    assert captions["split"].tolist() == [split_of(text) for text in captions["text"]]
    texts = [set(group["text"]) for _, group in captions.groupby("split")]
    assert len(texts) == 3
    assert sum(len(group) for group in texts) == len(set.union(*texts)) == len(captions)


def test_every_combination_is_trained_on(captions):
    train = captions[captions["split"] == "train"]
    assert len(train[list(NAMED)].drop_duplicates()) == COMBINATIONS


@pytest.mark.parametrize("split", ["heldout", "reference"])
def test_the_small_splits_hold_an_eighth_and_most_combinations(captions, split):
    part = captions[captions["split"] == split]
    assert len(part) / len(captions) == pytest.approx(1 / 8, abs=0.03)
    assert len(part[list(NAMED)].drop_duplicates()) > 0.75 * COMBINATIONS


def test_the_language_is_a_valid_prompt_table(captions):
    table = build_prompt_table(captions)
    assert table["split"].tolist() == captions["split"].tolist()
    assert table["id"].tolist() == captions["id"].tolist()


@pytest.mark.parametrize(("fill", "words"), FILL_WORDS.items())
def test_synonyms_name_the_same_fill(fill, words):
    assert [read_caption(f"a {word} red circle")["fill"] for word in words] == [FILLS.index(fill)] * len(words)


def test_capitals_do_not_matter():
    assert read_caption("A Solid RED Circle") == {"colour": 0, "shape": 0, "fill": 0}


def test_what_a_caption_does_not_name_is_left_out():
    assert read_caption("a blue thing") == {"colour": tuple(COLOURS).index("blue")}
    assert read_caption("nothing to see") == {}


def test_an_incomplete_caption_is_refused_with_what_it_lacks():
    with pytest.raises(ValueError, match="'a red thing' names no shape, fill"):
        named_attributes(["a solid red circle", "a red thing"])
