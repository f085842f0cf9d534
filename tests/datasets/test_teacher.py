import shutil
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from kedro.io.core import DatasetError

from onex_distill.datasets import TeacherDataset, hub
from onex_distill.models.teacher import TeacherFolder
from support import damage

MODEL = "someone/a-teacher"


def dataset(folder, hub_model=None):
    return TeacherDataset(filepath=folder.as_posix(), hub_model=hub_model)


def refused(folder, match, hub_model=None):
    with pytest.raises(DatasetError, match=match) as error:
        dataset(folder, hub_model).load()
    assert len(str(error.value).splitlines()) == 1


def test_a_teacher_comes_back_as_its_folder(tmp_path, tiny_teacher):
    dataset(tmp_path / "teacher").save(tiny_teacher)
    assert dataset(tmp_path / "teacher").load() == TeacherFolder(path=tmp_path / "teacher")


def test_a_missing_folder_says_what_to_do(tmp_path):
    refused(tmp_path / "teacher", "teacher does not exist; put it there, or correct its filepath")


def test_a_missing_component_is_an_error_of_the_dataset(tiny_teacher_folder):
    (tiny_teacher_folder / "checksums.json").unlink()
    shutil.rmtree(tiny_teacher_folder / "vae")
    refused(tiny_teacher_folder, "lacks the component 'vae'; copy the whole teacher folder")


@pytest.mark.parametrize("part", ["transformer/diffusion_pytorch_model.safetensors", "text_encoder_3/config.json"])
def test_a_damaged_component_is_an_error_of_the_dataset(tiny_teacher_folder, part):
    damage(tiny_teacher_folder / part, ("flip", [(-1, 0)]))
    refused(tiny_teacher_folder, f"{part} is damaged .*; copy it or make it again")


@pytest.fixture
def download(monkeypatch):
    """Put a function in the place of the hub's download."""

    def replace(function):
        monkeypatch.setattr(hub, "snapshot_download", function)

    return replace


def test_a_missing_teacher_is_fetched_once(tmp_path, stored_teacher, download):
    calls = []

    def fetch(model, local_dir, allow_patterns):
        calls.append(model)
        assert not any(pattern.endswith((".bin", ".py", ".pt", ".ckpt")) for pattern in allow_patterns)
        shutil.copytree(stored_teacher, local_dir)
        (local_dir / ".cache").mkdir()

    download(fetch)
    for _ in range(2):
        assert dataset(tmp_path / "teacher", MODEL).load().check().num_layers == 4
    assert calls == [MODEL]
    assert not (tmp_path / "teacher/.cache").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]


RESPONSE = SimpleNamespace(headers={}, request=None)


class ConnectError(Exception):
    """What the hub's HTTP library raises when the network goes away in the middle."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (GatedRepoError("first\nsecond", response=RESPONSE), f"{MODEL} is gated: accept its licence .* put a copy at"),
        (RepositoryNotFoundError("first\nsecond", response=RESPONSE), f"the hub has no model '{MODEL}'"),
        (HfHubHTTPError("first\nsecond", response=RESPONSE), "cannot be fetched from the hub .*; check the network"),
        (LocalEntryNotFoundError("first\nsecond"), "cannot be fetched from the hub .*; check the network"),
        (ConnectionError("first\nsecond"), "cannot be fetched from the hub .*; check the network"),
        (ConnectError("first\nsecond"), "cannot be fetched from the hub .*; check the network"),
    ],
)
def test_a_teacher_that_cannot_be_fetched_is_one_line_with_the_remedy(tmp_path, download, error, message):
    def fail(*args, **kwargs):
        raise error

    download(fail)
    refused(tmp_path / "teacher", message, MODEL)
    assert not dataset(tmp_path / "teacher").exists()
