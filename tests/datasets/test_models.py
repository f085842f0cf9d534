import shutil

import pytest
import torch
from kedro.io.core import DatasetError, Version

from onex_distill.datasets import ModelFolderDataset
from onex_distill.shapes.networks import ShapesReader
from onex_distill.storage.model_folder import ModelFolder, save_model
from support import damage

OLD, NEW = "2026-01-01T00.00.00.000Z", "2026-02-02T00.00.00.000Z"


def model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ShapesReader(channels=(8, 8), feature_dim=4)


def dataset(tmp_path, version=None, class_name="onex_distill.shapes.networks.ShapesReader"):
    return ModelFolderDataset(filepath=(tmp_path / "model").as_posix(), class_name=class_name, version=version)


def same_weights(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_model_comes_back_with_its_class_sizes_and_weights(tmp_path):
    dataset(tmp_path).save(model())
    loaded = dataset(tmp_path).load().load()
    assert isinstance(loaded, ShapesReader)
    assert loaded.config.feature_dim == 4
    assert same_weights(loaded, model())


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    dataset(tmp_path).save(model())
    folder = dataset(tmp_path).load()
    assert folder == ModelFolder(path=tmp_path / "model", class_name="onex_distill.shapes.networks.ShapesReader")


def test_a_folder_is_saved_as_a_copy_that_outlives_it(tmp_path):
    save_model(model(), tmp_path / "run")
    made = ModelFolder(path=tmp_path / "run", class_name="onex_distill.shapes.networks.ShapesReader")
    fingerprint = made.fingerprint()
    dataset(tmp_path).save(made)
    shutil.rmtree(tmp_path / "run")
    assert same_weights(dataset(tmp_path).load().load(), model())
    assert dataset(tmp_path).load().fingerprint() == fingerprint


def test_versions_keep_their_own_weights(tmp_path):
    dataset(tmp_path, Version(None, OLD)).save(model(1))
    dataset(tmp_path, Version(None, NEW)).save(model(2))
    assert same_weights(dataset(tmp_path, Version(OLD, None)).load().load(), model(1))
    assert same_weights(dataset(tmp_path, Version(None, None)).load().load(), model(2))


def test_a_loaded_model_shares_nothing_with_the_saved_one(tmp_path):
    original = model()
    dataset(tmp_path).save(original)
    with torch.no_grad():
        dataset(tmp_path).load().load().heads["colour"].weight.zero_()
    assert same_weights(original, model())
    assert same_weights(dataset(tmp_path).load().load(), model())


def test_weights_are_safetensors(tmp_path):
    dataset(tmp_path).save(model())
    assert [path.name for path in (tmp_path / "model").glob("*.*") if path.suffix != ".json"] == [
        "diffusion_pytorch_model.safetensors"
    ]


def test_a_damaged_file_is_an_error_of_the_dataset(tmp_path):
    dataset(tmp_path).save(model())
    damage(tmp_path / "model/diffusion_pytorch_model.safetensors", ("cut", 0.9))
    with pytest.raises(DatasetError, match=r"safetensors is damaged \(its checksum differs\)") as error:
        dataset(tmp_path).load()
    assert len(str(error.value).splitlines()) == 1


def test_something_that_cannot_be_saved_leaves_no_folder(tmp_path):
    with pytest.raises(DatasetError, match="save_pretrained"):
        dataset(tmp_path).save("no model")
    assert not dataset(tmp_path).exists()
    assert not (tmp_path / "model").exists()


def test_a_missing_folder_says_what_to_do(tmp_path):
    with pytest.raises(DatasetError, match="model does not exist; put it there"):
        dataset(tmp_path).load()


def test_what_is_saved_again_does_not_name_the_folder_it_came_from(tmp_path):
    dataset(tmp_path).save(model())
    dataset(tmp_path / "second").save(dataset(tmp_path).load().load())
    assert str(tmp_path) not in (tmp_path / "second/model/config.json").read_text()
