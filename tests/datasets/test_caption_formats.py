"""The caption files that people have are read as they are."""

import json
import logging

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kedro.io.core import DatasetError

from onex_distill.datasets import CaptionsDataset

JOURNEY = [
    {"img_path": "1.jpg", "prompt": "castle --v 4", "Task1": {"Style": ["oil"]}, "Task2": {"Caption": "A castle."}},
    {"img_path": "2.jpg", "prompt": "fox --v 4", "Task2": None},
    {"img_path": "3.jpg", "prompt": "sea", "ori_prompt": "the sea"},
    {"img_path": "4.jpg", "prompt": "tree", "Task2": {"Caption": "A tree."}},
]
COCO = {
    "info": {},
    "images": [{"id": 9, "file_name": "9.jpg"}, {"id": 7, "file_name": "7.jpg"}],
    "licenses": [],
    "annotations": [
        {"image_id": 9, "id": 1, "caption": "A cat."},
        {"image_id": 7, "id": 2, "caption": "A dog."},
        {"image_id": 9, "id": 3, "caption": "A grey cat.\n"},
        {"image_id": 9, "id": 4, "caption": "One cat"},
    ],
}


def load(path, **options):
    return CaptionsDataset(filepath=str(path), **options).load()


def texts(path, **options):
    return load(path, **options)["text"].tolist()


def refusal(path, **options):
    with pytest.raises(DatasetError) as error:
        load(path, **options)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


@pytest.fixture
def journey(tmp_path):
    path = tmp_path / "train_anno.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in JOURNEY))
    return path


def test_journeydb_gives_its_prompts_or_its_captions(journey, caplog):
    assert texts(journey) == ["castle --v 4", "fox --v 4", "sea", "tree"]
    with caplog.at_level(logging.WARNING):
        assert texts(journey, column="Task2.Caption") == ["A castle.", "A tree."]
    assert "2 rows of" in caplog.text
    assert texts(journey, column="prompt") == texts(journey)


def test_a_column_that_no_row_has_is_named(journey):
    assert "holds no caption" in refusal(journey, column="Task2.Captoin")


def test_coco_gives_one_caption_per_image_by_seed_and_its_ids(tmp_path):
    path = tmp_path / "captions_val2014.json"
    path.write_text(json.dumps(COCO))
    first = load(path)
    assert first.equals(load(path))
    assert first["id"].str.startswith(("coco-9-", "coco-7-")).all()
    assert len(first) == 2
    by_id = {f"coco-{a['image_id']}-{a['id']}": a["caption"].strip() for a in COCO["annotations"]}
    drawn = [load(path, seed=seed) for seed in range(30)]
    assert all(by_id[name] == text for one in drawn for name, text in zip(one["id"], one["text"], strict=True))
    assert len({one["id"].iloc[0] for one in drawn}) == 3


def test_coco_without_ids_is_refused(tmp_path):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"annotations": [{"image_id": 1, "caption": "a"}, COCO["annotations"][0]]}))
    assert "annotation 1 lacks image_id, id or caption" in refusal(path)


def test_partiprompts_digits_quotes_and_blank_lines(tmp_path):
    path = tmp_path / "PartiPrompts.tsv"
    rows = ["Prompt\tCategory\tChallenge\tNote", "42\tAbstract\tBasic\t", "", "0\tAbstract\tBasic\t"]
    rows += ['"a sign, ""open"""\tSigns\tText\tx', 'the 5" disk\tArtifacts\tBasic\t', '"unclosed\tA\tB\tC']
    path.write_text("\r\n".join(rows) + "\r\n", encoding="utf-8")
    assert texts(path) == ["42", "0", 'a sign, "open"', 'the 5" disk', '"unclosed']


def test_every_bad_row_is_named_by_the_files_own_lines(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text('text\na cat\n\n""\n"two\nlines"\n???\n' + "!\n" * 9)
    message = refusal(path)
    assert message.startswith(f"{path}: line 4 is empty, line 7 has no letter or digit ('???'), line 8 has")
    assert "and 6 more; remove or correct them" in message


def test_hpsv2_is_a_list_of_texts(tmp_path):
    path = tmp_path / "concept-art.json"
    path.write_text(json.dumps(["a ship", "an owl"]))
    assert texts(path) == ["a ship", "an owl"]


def test_lists_of_captions_give_one_by_seed(tmp_path):
    path = tmp_path / "flickr.parquet"
    pd.DataFrame({"image": [b"x", b"y"], "caption": [["a", "b", "c"], ["d"]]}).to_parquet(path)
    drawn = {tuple(texts(path, seed=seed)) for seed in range(20)}
    assert drawn == {("a", "d"), ("b", "d"), ("c", "d")}


def test_a_folder_of_parquet_shards_is_one_table(tmp_path):
    data = tmp_path / "hub" / "data"
    data.mkdir(parents=True)
    for number, names in enumerate((["a", "b"], ["c"])):
        frame = pd.DataFrame({"nested": [{"en": name, "de": "x"} for name in names], "other": 1})
        frame.to_parquet(data / f"train-0000{number}-of-00002.parquet")
    assert texts(tmp_path / "hub", column="nested.en") == ["a", "b", "c"]
    pd.DataFrame({"nested": [{"en": "?"}]}).to_parquet(data / "train-00002.parquet")
    assert "train-00002.parquet row 1 has no letter or digit" in refusal(tmp_path / "hub", column="nested.en")


def test_a_folder_without_parquet_and_a_dead_link_are_told_apart(tmp_path):
    assert "holds no .parquet file" in refusal(tmp_path)
    (tmp_path / "captions.txt").symlink_to(tmp_path / "gone.txt")
    assert "is a link to" in refusal(tmp_path / "captions.txt")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv", "a.tsv"])
def test_a_file_without_the_named_column_says_what_it_has(tmp_path, name):
    frame = pd.DataFrame({"words": ["a cat"]})
    write = {"a.jsonl": lambda path: frame.to_json(path, orient="records", lines=True), "a.parquet": frame.to_parquet}
    separator = "\t" if name == "a.tsv" else ","
    write.get(name, lambda path: frame.to_csv(path, index=False, sep=separator))(tmp_path / name)
    message = refusal(tmp_path / name)
    assert "lacks a column text, caption, prompt, Prompt or captions (found 'words')" in message
    assert texts(tmp_path / name, column="words") == ["a cat"]


def test_lines_end_at_line_feeds_alone(tmp_path):
    path = tmp_path / "captions.txt"
    odd = ["one\u2028two", "three\u0085four", "five\x0bsix", "seven\x1ceight"]
    path.write_bytes("\r\n".join(odd).encode())
    assert texts(path) == odd


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), max_size=12), max_size=6))
def test_any_lines_come_back_as_they_are(tmp_path, lines):
    path = tmp_path / "captions.txt"
    path.write_bytes("\n".join(lines).encode())
    wanted = [line.strip() for line in lines if line.strip()]
    if wanted and all(any(sign.isalnum() for sign in line) for line in wanted) and not lines[0].startswith("\ufeff"):
        assert texts(path) == wanted
    elif not lines or not lines[0].startswith("\ufeff"):
        assert ("has no letter or digit" if wanted else "holds no caption") in refusal(path)


@pytest.mark.parametrize("suffix", ["txt", "csv", "tsv", "json", "jsonl"])
@pytest.mark.parametrize("codec", ["utf-16", "utf-16-be"])
def test_utf16_is_refused_with_the_remedy(tmp_path, suffix, codec):
    path = tmp_path / f"captions.{suffix}"
    mark = b"\xfe\xff" if codec == "utf-16-be" else b""
    path.write_bytes(mark + "text\na red circle\n".encode(codec))
    assert "it is UTF-16 text; save it as UTF-8" in refusal(path)


def test_filters_come_before_the_subset(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("\n".join(f"a {word} {i}" for i in range(50) for word in ("cat", "dog")))
    cats = texts(path, filters={"matching": r"\bcat\b", "maximum_length": 8})
    assert cats == [f"a cat {i}" for i in range(50)]
    chosen = texts(path, filters={"matching": "cat"}, count=10, seed=3)
    assert chosen == texts(path, filters={"matching": "cat"}, count=10, seed=3)
    assert len(set(chosen)) == 10
    assert [text for text in cats if text in chosen] == chosen
    assert chosen != texts(path, filters={"matching": "cat"}, count=10, seed=4)
    assert "holds no caption that its filters keep" in refusal(path, filters={"minimum_length": 100})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": {"matching": "("}}, "is no regular expression"),
        ({"filters": {"matchng": "a"}}, "did you mean 'matching'"),
        ({"count": 0}, "keeps no caption"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, message):
    with pytest.raises(DatasetError, match=message):
        CaptionsDataset(filepath=str(tmp_path / "captions.txt"), **options)


def test_json_lines_that_are_none_are_named_together(tmp_path):
    path = tmp_path / "captions.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": \n[1]\n"a bare text"\n')
    assert "line 3 is no JSON object or text, line 4 is no JSON object or text" in refusal(path)


def test_right_to_left_nul_and_marks_are_text(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_text("text\nדג קטן\na\x00b\n", encoding="utf-8-sig")
    assert texts(path) == ["דג קטן", "a\x00b"]


def test_a_split_may_be_given_to_all_rows(tmp_path):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(COCO))
    assert load(path, split="heldout")["split"].tolist() == ["heldout", "heldout"]
    with pytest.raises(DatasetError, match=r"split 'test' of .* is unknown; it is one of train, reference, heldout"):
        load(path, split="test")
