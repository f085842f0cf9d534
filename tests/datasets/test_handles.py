"""Files of paths: they move with the data folder, and are refused when they are something else."""

import shutil
from pathlib import Path

import pytest
from kedro.io.core import DatasetError

from onex_distill.datasets import HandlesDataset
from onex_distill.evaluation.inputs import SamplingInputs
from onex_distill.models.teacher import TeacherFolder
from onex_distill.storage.tensor_table import TableFolder

CLASS = "onex_distill.evaluation.inputs.SamplingInputs"


@pytest.fixture
def inputs(tmp_path):
    return SamplingInputs(
        teacher=TeacherFolder(path=Path("/elsewhere/teacher")),
        embeddings=TableFolder(path=tmp_path / "data/03_primary/embeddings"),
        empty=TableFolder(path=tmp_path / "data/03_primary/empty"),
        batch_size=3,
        null_seed=7,
    )


def dataset(data: Path, class_name: str = CLASS) -> HandlesDataset:
    return HandlesDataset(filepath=str(data / "05_model_input/inputs"), class_name=class_name)


def test_paths_of_the_data_folder_move_with_it(inputs, tmp_path):
    dataset(tmp_path / "data").save(inputs)
    assert dataset(tmp_path / "data").load() == inputs
    shutil.move(tmp_path / "data", tmp_path / "moved")
    moved = dataset(tmp_path / "moved").load()
    assert moved.embeddings.path == tmp_path / "moved/03_primary/embeddings"
    assert moved.teacher == inputs.teacher
    assert str(tmp_path) not in (tmp_path / "moved/05_model_input/inputs/handles.json").read_text()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"teacher": 3}'])
def test_a_damaged_file_is_one_line(inputs, tmp_path, content):
    dataset(tmp_path / "data").save(inputs)
    (tmp_path / "data/05_model_input/inputs/handles.json").write_text(content)
    with pytest.raises(
        DatasetError, match=r"inputs does not describe a onex_distill\.evaluation.*make it again"
    ) as error:
        dataset(tmp_path / "data").load()
    assert "\n" not in str(error.value)


def test_classes_of_other_packages_are_refused(inputs, tmp_path):
    dataset(tmp_path / "data").save(inputs)
    with pytest.raises(DatasetError, match="is not from"):
        dataset(tmp_path / "data", "os.path.join").load()
