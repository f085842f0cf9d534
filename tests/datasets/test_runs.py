import pytest
from kedro.io.core import DatasetError

from onex_distill.datasets import RunsFolderDataset


def test_the_folder_is_made_when_it_is_asked_for(tmp_path):
    folder = tmp_path / "models" / "runs"
    dataset = RunsFolderDataset(filepath=folder.as_posix())
    assert dataset.exists()
    assert not folder.exists()
    assert dataset.load() == folder
    assert folder.is_dir()


def test_what_a_run_left_inside_survives_loading(tmp_path):
    (tmp_path / "step-10").mkdir()
    folder = RunsFolderDataset(filepath=tmp_path.as_posix()).load()
    assert [path.name for path in folder.iterdir()] == ["step-10"]


def test_a_node_cannot_write_it(tmp_path):
    with pytest.raises(DatasetError, match="written by the training loop, not by a node"):
        RunsFolderDataset(filepath=tmp_path.as_posix()).save("anything")
