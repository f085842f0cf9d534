import shutil

import pandas as pd
import pytest
import torch
from kedro.io.core import DatasetError, Version

from onex_distill.datasets import TensorTableDataset
from onex_distill.storage.tensor_table import TensorTable

OLD, NEW = "2026-01-01T00.00.00.000Z", "2026-02-02T00.00.00.000Z"


@pytest.fixture
def table(tmp_path):
    """Make a table of one column that begins with a value, where jobs make theirs."""

    def make(value, rows=12):
        column = torch.full((rows, 2), value) + torch.arange(rows)[:, None]
        index = pd.DataFrame({"text": [f"caption {i}" for i in range(rows)]})
        return TensorTable.write(tmp_path / f"run-{value}-{rows}", index, {"latent": column})

    return make


def dataset(tmp_path, version=None):
    return TensorTableDataset(filepath=(tmp_path / "table").as_posix(), version=version)


def test_a_table_comes_back(tmp_path, table):
    dataset(tmp_path).save(table(0.5))
    loaded = dataset(tmp_path).load()
    pd.testing.assert_frame_equal(loaded.index, table(0.5).index)
    assert torch.equal(loaded.column("latent"), table(0.5).column("latent"))


def test_versions_keep_their_own_rows(tmp_path, table):
    dataset(tmp_path, Version(None, OLD)).save(table(0.0))
    dataset(tmp_path, Version(None, NEW)).save(table(100.0, rows=3))
    pinned, newest = (dataset(tmp_path, Version(load, None)).load() for load in (OLD, None))
    assert torch.equal(pinned.column("latent"), table(0.0).column("latent"))
    assert torch.equal(newest.column("latent"), table(100.0, rows=3).column("latent"))


def test_a_missing_shard_is_an_error_of_the_dataset(tmp_path, table):
    dataset(tmp_path).save(table(0.0))
    (tmp_path / "table" / "part-00000.safetensors").unlink()
    with pytest.raises(DatasetError, match=r"should hold 1 shards but lacks part-00000\.safetensors"):
        dataset(tmp_path).load()


def test_a_table_outlives_the_run_that_made_it(tmp_path, table):
    made = table(0.5)
    dataset(tmp_path).save(made)
    shutil.rmtree(made.folder)
    assert len(dataset(tmp_path).load().column("latent")) == 12


def test_a_folder_of_something_else_is_an_error_of_the_dataset(tmp_path):
    (tmp_path / "table").mkdir()
    with pytest.raises(DatasetError, match="is no finished table") as error:
        dataset(tmp_path).load()
    assert len(str(error.value).splitlines()) == 1


def test_the_preview_is_the_head_of_the_index(tmp_path, table):
    dataset(tmp_path).save(table(0.0))
    assert dataset(tmp_path).preview(nrows=2) == table(0.0).index.head(2).to_dict(orient="split")
    assert len(dataset(tmp_path).preview()["data"]) == 10
