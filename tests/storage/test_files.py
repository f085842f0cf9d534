import pandas as pd
import pytest

from onex_distill.storage.files import absent, complete, remove_folder, remove_made, write_text
from onex_distill.storage.frame import FrameFile, store_frame


def test_a_file_is_there_after_the_block_and_not_before(tmp_path):
    path = tmp_path / "a.txt"
    with complete(path) as partial:
        partial.write_text("all of it")
        assert not path.exists()
    assert path.read_text() == "all of it"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_write_that_fails_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(partial):
        partial.write_text("ne")
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"), complete(path) as partial:
        fail(partial)
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"


FRAME = pd.DataFrame({"text": ["a", "b"], "seed": [1, 2]})


def test_a_frame_comes_back_from_its_handle(tmp_path):
    stored = store_frame(FRAME, tmp_path / "new" / "frame.parquet")
    again = FrameFile.model_validate_json(stored.model_dump_json())
    pd.testing.assert_frame_equal(again.read(), FRAME)


@pytest.mark.parametrize(
    "other",
    [
        FRAME.assign(seed=[1, 3]),
        FRAME.assign(text=["a", "c"]),
        FRAME.iloc[::-1].reset_index(drop=True),
        FRAME.iloc[:1],
        FRAME.rename(columns={"seed": "noise_seed"}),
        FRAME.assign(more=0),
    ],
    ids=["number", "text", "order", "length", "name", "column"],
)
def test_a_fingerprint_follows_rows_and_names(tmp_path, other):
    stored = store_frame(FRAME, tmp_path / "frame.parquet")
    assert store_frame(FRAME.copy(), tmp_path / "same.parquet").fingerprint() == stored.fingerprint()
    assert store_frame(other, tmp_path / "other.parquet").fingerprint() != stored.fingerprint()


def run_folder(path):
    for name in ("step-00000002/state.json", "step-00000002/rank-00000.safetensors", "result/losses.parquet", "stop"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    return path


def test_what_a_run_made_is_removed_with_its_folders(tmp_path):
    assert remove_made(run_folder(tmp_path / "run")) == []
    assert list(tmp_path.iterdir()) == []
    assert remove_made(tmp_path / "never there") == []


@pytest.mark.parametrize("name", ["notes.txt", "step-00000002/my weights.safetensors", "result/.hidden", "mine/state"])
def test_what_no_run_made_stays_at_its_place(tmp_path, name):
    foreign = run_folder(tmp_path / "run") / name
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_bytes(b"mine")
    assert remove_made(tmp_path / "run") == [foreign]
    assert [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()] == [b"mine"]


def test_a_link_is_not_followed(tmp_path):
    outside = run_folder(tmp_path / "outside")
    (run_folder(tmp_path / "run") / "result/link").symlink_to(outside)
    (tmp_path / "linked").symlink_to(outside)
    remove_made(tmp_path / "run")
    remove_made(tmp_path / "linked")
    assert len([path for path in outside.rglob("*") if path.is_file()]) == 4


def test_a_removed_folder_gives_up_its_name_even_when_something_foreign_is_inside(tmp_path):
    for _ in range(2):
        (run_folder(tmp_path / "run") / "notes.txt").write_text("mine")
        remove_folder(tmp_path / "run")
        assert not (tmp_path / "run").exists()
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine", "mine"]


def test_why_something_is_absent(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert absent(tmp_path) == f"{tmp_path} is a folder, where a file is expected"
    assert absent(tmp_path / "file") == f"{tmp_path / 'file'} is no folder, where a folder is expected"
    assert absent(tmp_path / "link") == f"{tmp_path / 'link'} is a link to {tmp_path / 'gone'}, which does not exist"
    assert absent(tmp_path / "gone") == f"{tmp_path / 'gone'} does not exist"
