import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onex_distill.shapes.networks import ShapesReader
from onex_distill.storage.model_folder import CHECKSUMS, ModelFolder, class_of, save_model, verify
from support import DAMAGE, damage

READER = "onex_distill.shapes.networks.ShapesReader"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ShapesReader(channels=(8, 8), feature_dim=4)


def stored(folder, seed=0):
    save_model(model(seed), folder)
    return ModelFolder(path=folder, class_name=READER)


def same_weights(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def refused(folder, match):
    with pytest.raises(ValueError, match=match) as error:
        folder.load()
    assert len(str(error.value).splitlines()) == 1


def test_a_model_comes_back_with_its_class_sizes_and_weights(tmp_path):
    loaded = stored(tmp_path).load()
    assert type(loaded) is ShapesReader
    assert loaded.config.feature_dim == 4
    assert same_weights(loaded, model())


def test_a_handle_survives_the_way_through_json(tmp_path):
    folder = stored(tmp_path)
    assert same_weights(ModelFolder.model_validate_json(folder.model_dump_json()).load(), model())


def test_arguments_reach_from_pretrained(tmp_path):
    assert stored(tmp_path).load(dtype=torch.bfloat16).dtype == torch.bfloat16


def test_a_loaded_model_shares_nothing_with_the_folder(tmp_path):
    folder = stored(tmp_path)
    with torch.no_grad():
        folder.load().heads["colour"].weight.zero_()
    assert same_weights(folder.load(), model())


def test_the_architecture_is_built_without_weights(tmp_path):
    folder = stored(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    built = folder.build()
    assert {name: p.shape for name, p in built.named_parameters()} == {
        n: p.shape for n, p in model().named_parameters()
    }
    assert all(parameter.is_meta for parameter in built.parameters())


def test_a_loaded_model_does_not_name_the_folder_it_came_from(tmp_path):
    save_model(stored(tmp_path / "first").load(), tmp_path / "second")
    assert str(tmp_path) not in (tmp_path / "second/config.json").read_text()


def test_every_file_has_its_checksum(tiny_teacher_folder):
    files = {path.relative_to(tiny_teacher_folder).as_posix() for path in tiny_teacher_folder.rglob("*.*")}
    assert set(json.loads((tiny_teacher_folder / CHECKSUMS).read_text())) == files - {CHECKSUMS}
    verify(tiny_teacher_folder)


@pytest.mark.parametrize("with_checksums", [True, False])
def test_a_fingerprint_follows_the_contents_and_not_the_place(tmp_path, with_checksums):
    folders = [stored(tmp_path / name, seed) for name, seed in (("first", 0), ("same", 0), ("other", 1))]
    if not with_checksums:
        for folder in folders:
            (folder.path / CHECKSUMS).unlink()
    first, same, other = (folder.fingerprint() for folder in folders)
    assert first == same != other


def test_a_fingerprint_sees_one_changed_bit(tmp_path):
    folder = stored(tmp_path)
    (tmp_path / CHECKSUMS).unlink()
    before = folder.fingerprint()
    damage(tmp_path / WEIGHTS, ("flip", [(-1, 0)]))
    assert folder.fingerprint() != before


def test_a_missing_folder_says_what_to_do(tmp_path):
    folder = ModelFolder(path=tmp_path / "model", class_name=READER)
    refused(folder, "model does not exist; put the model there, or correct its filepath")


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = stored(tmp_path)
    (tmp_path / name).unlink()
    refused(folder, f"lacks the file {name}; copy the whole folder or make it again")


def test_pickles_are_not_read(tmp_path):
    folder = stored(tmp_path)
    for name in (WEIGHTS, CHECKSUMS):
        (tmp_path / name).unlink()
    torch.save(model().state_dict(), tmp_path / "diffusion_pytorch_model.bin")
    refused(folder, "holds its weights as diffusion_pytorch_model.bin, a pickle, .* save the model as safetensors once")


def test_weights_of_another_architecture_are_refused(tmp_path):
    folder = stored(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"channels": [8, 8, 8]}))
    (tmp_path / CHECKSUMS).unlink()
    refused(folder, "cannot be loaded as|does not hold the weights of its config.json")


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b"null", b"\xff\xfe"])
def test_a_config_of_something_else_is_reported_in_one_line(tmp_path, content):
    folder = stored(tmp_path)
    (tmp_path / CHECKSUMS).unlink()
    (tmp_path / "config.json").write_bytes(content)
    refused(folder, f"{tmp_path} cannot be loaded as onex_distill.shapes.networks.ShapesReader: ")


@pytest.mark.parametrize("content", [b"", b"cut", b"\x93NUMPY" * 100])
def test_weights_of_something_else_are_reported_in_one_line(tmp_path, content):
    folder = stored(tmp_path)
    (tmp_path / CHECKSUMS).unlink()
    (tmp_path / WEIGHTS).write_bytes(content)
    refused(folder, "cannot be loaded as .*ShapesReader: ")


@pytest.mark.parametrize("content", [b"", b"[1]", b"7", b"\xff"])
def test_damaged_checksums_are_reported_in_one_line(tmp_path, content):
    folder = stored(tmp_path)
    (tmp_path / CHECKSUMS).write_bytes(content)
    refused(folder, f"{CHECKSUMS} is damaged .*; copy the whole folder again")


@pytest.mark.parametrize("name", ["os.path", "builtins.eval", "onex_distill_evil.Model", "eval"])
def test_a_class_from_elsewhere_is_refused(name):
    with pytest.raises(ValueError, match=f"class_name '{name}' is not from diffusers, .*; correct the catalog"):
        class_of(name)


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    return stored(tmp_path_factory.mktemp("model") / "whole")


@settings(deadline=None, max_examples=150)
@given(name=st.sampled_from([WEIGHTS, "config.json", CHECKSUMS]), how=DAMAGE)
def test_any_damage_is_one_line(tmp_path_factory, on_disk, name, how):
    path = tmp_path_factory.mktemp("damaged")
    shutil.copytree(on_disk.path, path, dirs_exist_ok=True)
    if damage(path / name, how):
        named = f"{CHECKSUMS} is damaged|checksum differs|lacks the file" if name == CHECKSUMS else f"{name} is damaged"
        refused(ModelFolder(path=path, class_name=READER), named)
    else:
        assert same_weights(ModelFolder(path=path, class_name=READER).load(), model())
    shutil.rmtree(path)
