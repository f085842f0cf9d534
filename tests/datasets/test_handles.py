"""Files of paths: they move with the data folder, and are refused when they are something else."""

import shutil
from pathlib import Path

import pytest
from kedro.framework.startup import bootstrap_project
from kedro.io.core import DatasetError
from kedro.pipeline import node, pipeline

from onex_distill.catalog import OrderedCatalog
from onex_distill.datasets import HandlesDataset
from onex_distill.evaluation.inputs import SamplingInputs
from onex_distill.hooks import MissingInputsHook
from onex_distill.models.teacher import TeacherFolder
from onex_distill.storage.tensor_table import TableFolder
from onex_distill.storage.versions import version_path
from support import PROJECT

OLD, NEW = "2026-01-01T00.00.00.000Z", "2026-01-02T00.00.00.000Z"
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


@pytest.fixture
def gathered(inputs, tmp_path):
    """A catalog with sampling_inputs of the old version, which name a table of the old version."""
    bootstrap_project(PROJECT)
    table = version_path(tmp_path / "data/03_primary/embeddings", OLD)
    table.mkdir(parents=True)
    config = {
        "sampling_inputs": {
            "type": "onex_distill.datasets.HandlesDataset",
            "filepath": str(tmp_path / "data/05_model_input/sampling_inputs"),
            "class_name": CLASS,
            "versioned": True,
        }
    }
    stale = inputs.model_copy(update={"embeddings": TableFolder(path=table)})
    OrderedCatalog.from_config(config, save_version=OLD).save("sampling_inputs", stale)
    return config


def check(config, **versions):
    read = pipeline([node(repr, "sampling_inputs", "text", name="read")])
    MissingInputsHook().before_pipeline_run(read, OrderedCatalog.from_config(config, save_version=NEW, **versions))


def test_a_gathered_input_that_names_an_older_version_is_refused(gathered, tmp_path):
    check(gathered)
    newer = version_path(tmp_path / "data/03_primary/embeddings", NEW)
    newer.parent.mkdir()
    check(gathered)  # nothing is in that version
    newer.mkdir()
    with pytest.raises(ValueError, match="embeddings") as error:
        check(gathered)
    assert str(error.value) == (
        f"sampling_inputs names version {OLD} of embeddings, whose newest is {NEW}; run "
        "`kedro run --pipelines=distill --from-nodes=gather_sampling_inputs`, or keep the older one with "
        f"--load-versions=sampling_inputs:{OLD}"
    )
    check(gathered, load_versions={"sampling_inputs": OLD})


def test_what_the_same_run_gathers_is_not_judged_before_it(gathered, tmp_path):
    version_path(tmp_path / "data/03_primary/embeddings", NEW).mkdir(parents=True)
    gather = node(repr, "a", "sampling_inputs", name="gather")
    both = pipeline([gather, node(repr, "sampling_inputs", "b", name="read")])
    MissingInputsHook().before_pipeline_run(both, OrderedCatalog.from_config(gathered, save_version=NEW))
