"""Versions stay in order whatever the clock says."""

import os

import pandas as pd
import pytest
from kedro.io.core import DatasetError
from PIL import Image

from onex_distill.catalog import OrderedCatalog, newest_version
from onex_distill.datasets import RunsFolderDataset

NOW = "2026-01-01T00.00.00.000Z"
LATER = "2031-05-06T07.08.09.010Z"


def config(tmp_path):
    return {
        "{name}_table": {
            "type": "json.JSONDataset",
            "filepath": f"{tmp_path}/tables/{{name}}.json",
            "versioned": True,
        },
        "plain": {"type": "json.JSONDataset", "filepath": f"{tmp_path}/tables/plain.json"},
    }


def test_without_versions_kedros_own_is_kept(tmp_path):
    assert newest_version(config(tmp_path)) is None
    catalog = OrderedCatalog.from_config(config(tmp_path), save_version=NOW)
    catalog["a_table"].save([1])
    assert (tmp_path / "tables/a.json" / NOW).is_dir()


@pytest.mark.parametrize("clock", [NOW, LATER])
@pytest.mark.parametrize("name", ["a_table", "b_table"])
def test_a_run_that_would_not_come_after_all_versions_is_refused(tmp_path, clock, name):
    OrderedCatalog.from_config(config(tmp_path), save_version=LATER)[name].save(["old"])
    (tmp_path / "tables" / f"{name[0]}.json" / "not a version").mkdir()
    with pytest.raises(ValueError, match="the clock is behind") as error:
        OrderedCatalog.from_config(config(tmp_path), save_version=clock)
    assert str(error.value) == (
        f"the clock is behind: this run would be version {clock}, but {tmp_path}/tables/{name[0]}.json/{LATER} is "
        "there and would be loaded in its place; set the clock, move that version away, or write elsewhere with "
        "--params=data=DIR"
    )
    assert OrderedCatalog.from_config(config(tmp_path))[name].load() == ["old"]  # a catalog of no run is not judged


def test_a_later_run_saves_as_its_session_says(tmp_path):
    OrderedCatalog.from_config(config(tmp_path), save_version=NOW)["a_table"].save(["old"])
    catalog = OrderedCatalog.from_config(config(tmp_path), save_version=LATER)
    catalog["a_table"].save(["new"])
    assert newest_version(config(tmp_path)) == tmp_path / "tables/a.json" / LATER
    assert catalog["a_table"].load() == ["new"]


def test_a_data_folder_that_cannot_be_written_is_one_line():
    with pytest.raises(DatasetError, match=r"/proc/data/runs cannot be written \(.*\); make it writable, or"):
        RunsFolderDataset(filepath="/proc/data/runs").load()


class Failing:
    """Data that no dataset can write to its end."""

    def __str__(self):
        raise OSError(28, "No space left on device")


KINDS = {  # every type of one file in conf/, and what it holds
    "json.JSONDataset": {"a": 1},
    "onex_distill.datasets.DocumentDataset": "\u2028 text \u00e9",
    "onex_distill.datasets.CsvTableDataset": pd.DataFrame({"a": [1, 2]}),
    "onex_distill.datasets.TableDataset": pd.DataFrame({"a": [1, 2]}),
    "onex_distill.datasets.PreviewedImageDataset": Image.new("RGB", (2, 2)),
    "onex_distill.datasets.CaptionsDataset": pd.DataFrame({"text": ["a"]}),
}
SUFFIX = {"onex_distill.datasets.PreviewedImageDataset": "png", "onex_distill.datasets.CaptionsDataset": "parquet"}


def catalog_of(tmp_path, kind, version, versioned=True):
    entry = {"type": kind, "filepath": f"{tmp_path}/some folder/file.{SUFFIX.get(kind, 'txt')}"}
    if versioned and kind != "onex_distill.datasets.CaptionsDataset":
        entry["versioned"] = True
    return OrderedCatalog.from_config({"data": entry}, save_version=version)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_save_that_fails_at_its_end_leaves_what_was_there(tmp_path, monkeypatch, kind, versioned):
    catalog_of(tmp_path, kind, NOW, versioned).save("data", KINDS[kind])
    (tmp_path / "some folder/notes of mine.txt").write_text("mine")
    before = files(tmp_path)
    assert len(before) == 2
    catalog = catalog_of(tmp_path, kind, LATER, versioned)
    loaded = catalog.load("data")

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)  # all bytes are written, and the disk refuses them
        with pytest.raises(OSError, match="No space left on device"):
            catalog.save("data", KINDS[kind])
    assert files(tmp_path) == before
    assert [path.name for path in tmp_path.rglob(".partial-*")] == []
    catalog = catalog_of(tmp_path, kind, LATER, versioned)
    assert type(catalog.load("data")) is type(loaded)
    catalog.save("data", KINDS[kind])
    assert len(files(tmp_path)) == 2 + (versioned and "CaptionsDataset" not in kind)
    catalog.load("data")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("json.JSONDataset", "Failing is not JSON serializable"),
        ("onex_distill.datasets.DocumentDataset", "must be str, not Failing"),
        ("onex_distill.datasets.CsvTableDataset", "no attribute 'to_csv'"),
    ],
)
def test_data_that_cannot_be_written_leaves_no_empty_version(tmp_path, kind, message):
    with pytest.raises((DatasetError, OSError, AttributeError, TypeError), match=message):
        catalog_of(tmp_path, kind, NOW).save("data", Failing())
    assert files(tmp_path) == {}
    assert not catalog_of(tmp_path, kind, NOW)["data"].exists()


def test_a_version_that_is_there_is_not_written_again(tmp_path):
    catalog = OrderedCatalog.from_config(config(tmp_path), save_version=NOW)
    catalog.save("a_table", [1])
    with pytest.raises(DatasetError, match="must not exist if versioning is enabled"):
        catalog.save("a_table", [2])
    assert catalog.load("a_table") == [1]
