import json

import pandas as pd
import pytest
from kedro.io.core import DatasetError

from onex_distill.datasets import CaptionsDataset

TEXTS = ["a red circle", 'a "quoted", square', "红色的圆 in Ährenfeld", "one, two, three"]


def dataset(path):
    return CaptionsDataset(filepath=str(path))


def write_txt(path):
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")


def write_csv(path):
    pd.DataFrame({"text": TEXTS}).to_csv(path, index=False)


def write_jsonl(path):
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in TEXTS), encoding="utf-8")


def write_parquet(path):
    pd.DataFrame({"text": TEXTS}).to_parquet(path)


def refused(path, match):
    with pytest.raises(DatasetError, match=match) as error:
        dataset(path).load()
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("write", [write_txt, write_csv, write_jsonl, write_parquet])
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
    refused(path, r"captions.docx is in an unknown format; captions are read from .txt, .csv, .parquet, .jsonl")


def test_a_missing_file_is_named(tmp_path):
    refused(tmp_path / "captions.txt", r"captions.txt does not exist; write it, or correct its path")
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
