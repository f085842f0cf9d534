import csv
import json
from functools import partial

import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from kedro.io.core import DatasetError

from onex_distill.datasets import CaptionsDataset
from onex_distill.storage.prompt_table import SPLITS, build_prompt_table
from support import DAMAGE, damage

TEXTS = ["a red circle", 'a "quoted", square', "红色的圆 in Ährenfeld", "one, two, three"]


def dataset(path):
    return CaptionsDataset(filepath=str(path))


def write_txt(path):
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")


def write_csv(path):
    pd.DataFrame({"text": TEXTS}).to_csv(path, index=False)


def write_tsv(path):
    path.write_text("".join(f"{text}\tany\n" for text in ["Prompt", *TEXTS]), encoding="utf-8")


def write_json(path):
    path.write_text(json.dumps(TEXTS), encoding="utf-8")


def write_jsonl(path):
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in TEXTS), encoding="utf-8")


def write_parquet(path):
    pd.DataFrame({"text": TEXTS}).to_parquet(path)


def refused(path, match):
    with pytest.raises(DatasetError, match=match) as error:
        dataset(path).load()
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("write", [write_txt, write_csv, write_tsv, write_json, write_jsonl, write_parquet])
def test_every_format_gives_the_same_texts(tmp_path, write):
    path = tmp_path / f"captions.{write.__name__.removeprefix('write_')}"
    write(path)
    assert dataset(path).load()["text"].tolist() == TEXTS


def test_lines_are_stripped_and_blank_ones_dropped(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_bytes(b"  a red circle  \r\n\r\n   \r\na blue square")
    assert dataset(path).load()["text"].tolist() == ["a red circle", "a blue square"]


@pytest.mark.parametrize(("suffix", "head"), [("txt", ""), ("csv", "text\n")])
def test_a_byte_order_mark_is_not_part_of_the_first_caption(tmp_path, suffix, head):
    path = tmp_path / f"captions.{suffix}"
    path.write_text(head + "a red circle\n", encoding="utf-8-sig")
    assert dataset(path).load()["text"].tolist() == ["a red circle"]


def test_other_columns_come_along(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_text("id,text,split\nx1,a red circle,heldout\n")
    assert dataset(path).load().to_dict(orient="records") == [{"id": "x1", "text": "a red circle", "split": "heldout"}]


def test_a_saved_parquet_comes_back(tmp_path):
    captions = pd.DataFrame({"id": ["a", "b"], "text": TEXTS[:2]})
    saved = dataset(tmp_path / "new" / "captions.parquet")
    saved.save(captions)
    pd.testing.assert_frame_equal(saved.load(), captions)


@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl"])
def test_only_parquet_is_written(tmp_path, suffix):
    path = tmp_path / f"captions.{suffix}"
    with pytest.raises(DatasetError, match=rf"only written as .parquet, not .{suffix}"):
        dataset(path).save(pd.DataFrame({"text": TEXTS}))
    assert not path.exists()


def test_an_unknown_format_names_the_known_ones(tmp_path):
    path = tmp_path / "captions.docx"
    path.write_text("a red circle")
    refused(
        path, r"captions.docx is in an unknown format; captions are read from .txt, .csv, .tsv, .json, .jsonl, .parquet"
    )


def test_a_missing_file_is_named(tmp_path):
    refused(tmp_path / "captions.txt", r"captions.txt does not exist; put the captions there, or correct their path")
    assert not dataset(tmp_path / "captions.txt").exists()


@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl"])
def test_text_in_another_encoding_is_refused(tmp_path, suffix):
    path = tmp_path / f"captions.{suffix}"
    line = {"txt": "ein grüner Kreis", "csv": "text\nein grüner Kreis\n", "jsonl": '{"text": "ein grüner Kreis"}\n'}
    path.write_bytes(line[suffix].encode("latin-1"))
    refused(path, "is not UTF-8 text .*; save it as UTF-8")


def test_an_empty_csv_is_refused(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_text("")
    refused(path, "is empty; add a column 'text' with captions")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, suffix):
    path = tmp_path / f"captions.{suffix}"
    path.write_text("a red circle\n")
    refused(path, f"cannot be read as .{suffix}")


def test_the_preview_shows_the_first_captions(tmp_path):
    path = tmp_path / "captions.txt"
    write_txt(path)
    preview = dataset(path).preview(nrows=2)
    assert preview["columns"] == ["text"]
    assert preview["data"] == [[TEXTS[0]], [TEXTS[1]]]


@pytest.mark.parametrize(
    "content", ["text\na red, solid circle\n", "id,text\n1,a red, solid circle\n", "text\na, b, c\na red circle\n"]
)
def test_commas_outside_quotes_do_not_shift_the_columns(tmp_path, content):
    path = tmp_path / "captions.csv"
    path.write_text(content)
    refused(path, "line 2 has more fields than the header; put captions with commas in double quotes")


def test_ids_keep_their_leading_zeros(tmp_path):
    (tmp_path / "captions.csv").write_text("id,text\n007,a\n7,b\n")
    (tmp_path / "captions.jsonl").write_text('{"id": "007", "text": "a"}\n{"id": 7, "text": "b"}\n')
    for name in ("captions.csv", "captions.jsonl"):
        assert dataset(tmp_path / name).load()["id"].tolist() == ["007", "7"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_duplicate_ids_are_refused_from_any_file(tmp_path, suffix):
    path = tmp_path / f"captions.{suffix}"
    table = pd.DataFrame({"id": ["x", "y", "x"], "text": TEXTS[:3]})
    write = {"csv": table.to_csv, "jsonl": partial(table.to_json, orient="records", lines=True)}
    write.get(suffix, table.to_parquet)(path)
    with pytest.raises(ValueError, match="caption id 'x' occurs more than once"):
        build_prompt_table(dataset(path).load())


@pytest.mark.parametrize("text", ["true", "42", '[["a"]]', '{"a": 1}'])
def test_a_json_value_that_is_no_text_does_not_become_one(tmp_path, text):
    path = tmp_path / "captions.jsonl"
    path.write_text(f'{{"text": "a red circle"}}\n{{"text": {text}}}\n')
    refused(path, "captions.jsonl: line 2 is no text")


def load_or_refuse(path):
    """The prompt table of a file, or None when the file is refused in one line."""
    try:
        return build_prompt_table(dataset(path).load())
    except (DatasetError, ValueError) as error:
        lines = str(error).splitlines()
    assert len(lines) == 1, lines
    return None


def accept_or_refuse(path):
    """Whatever the file holds, it is refused in one line or makes a sound prompt table."""
    table = load_or_refuse(path)
    if table is None:
        return
    assert list(table.columns) == ["id", "text", "split", "source_hash"]
    assert len(table) > 0
    assert table["id"].is_unique
    assert all(isinstance(text, str) and any(letter.isalnum() for letter in text) for text in table["text"])
    assert set(table["split"]) <= set(SPLITS)


FILES = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
FORMATS = st.sampled_from(["txt", "csv", "tsv", "json", "jsonl", "parquet"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.just("a red circle"))
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.text(max_size=3), SCALARS, max_size=2))
NAMES = st.sampled_from(["id", "text", "split", "other", ""])


@FILES
@given(suffix=FORMATS, content=st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)))
def test_random_bytes_are_refused_in_one_line_or_make_a_table(tmp_path, suffix, content):
    path = tmp_path / f"captions.{suffix}"
    path.write_bytes(content)
    accept_or_refuse(path)


@FILES
@given(write=st.sampled_from([write_txt, write_csv, write_tsv, write_json, write_jsonl, write_parquet]), how=DAMAGE)
def test_a_damaged_file_is_refused_in_one_line_or_makes_a_table(tmp_path, write, how):
    path = tmp_path / f"captions.{write.__name__.removeprefix('write_')}"
    write(path)
    damage(path, how)
    accept_or_refuse(path)


@FILES
@given(rows=st.lists(st.one_of(VALUES, st.dictionaries(NAMES, VALUES, max_size=4)), max_size=4))
def test_any_json_lines_are_refused_in_one_line_or_make_a_table(tmp_path, rows):
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    accept_or_refuse(path)


@FILES
@given(columns=st.lists(NAMES, max_size=4), rows=st.lists(st.lists(SCALARS, max_size=5), max_size=4))
def test_any_csv_is_refused_in_one_line_or_makes_a_table(tmp_path, columns, rows):
    path = tmp_path / "captions.csv"
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        csv.writer(file).writerows([columns, *rows])
    accept_or_refuse(path)


@FILES
@given(columns=st.dictionaries(NAMES, st.lists(VALUES, min_size=2, max_size=2), max_size=4))
def test_any_parquet_is_refused_in_one_line_or_makes_a_table(tmp_path, columns):
    path = tmp_path / "captions.parquet"
    frame = pd.DataFrame(columns)
    try:
        frame.to_parquet(path)
    except (ValueError, TypeError, OverflowError, NotImplementedError):
        assume(False)
    accept_or_refuse(path)
