"""Versions stay in order whatever the clock says."""

import pytest

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
def test_a_version_comes_after_all_that_are_there(tmp_path, clock, caplog):
    OrderedCatalog.from_config(config(tmp_path), save_version=LATER)["a_table"].save(["old"])
    (tmp_path / "tables/a.json/not a version").mkdir()
    catalog = OrderedCatalog.from_config(config(tmp_path), save_version=clock)
    catalog["a_table"].save(["new"])
    assert newest_version(config(tmp_path)) == "2031-05-06T07.08.09.011Z"
    assert OrderedCatalog.from_config(config(tmp_path), save_version=NOW)["a_table"].load() == ["new"]
    assert "The clock is behind the newest version on disk" in caplog.text


def test_another_datasets_version_counts_too(tmp_path):
    OrderedCatalog.from_config(config(tmp_path), save_version=LATER)["a_table"].save(["old"])
    OrderedCatalog.from_config(config(tmp_path), save_version=NOW)["b_table"].save(["new"])
    assert (tmp_path / "tables/b.json/2031-05-06T07.08.09.011Z").is_dir()


def test_a_data_folder_that_cannot_be_written_is_one_line():
    with pytest.raises(Exception, match=r"/proc/data/runs cannot be written \(.*\); make it writable, or"):
        RunsFolderDataset(filepath="/proc/data/runs").load()
