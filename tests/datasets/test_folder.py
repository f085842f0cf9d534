from pathlib import Path

import pytest
from kedro.io.core import DatasetError, Version

from onex_distill.datasets.folder import FolderDataset

OLD, NEW = "2026-01-01T00.00.00.000Z", "2026-02-02T00.00.00.000Z"


class Words(FolderDataset):
    """A folder of files, one word each; the word 'fail' cannot be written."""

    def read(self, folder: Path):
        return [file.read_text() for file in sorted(folder.iterdir())]

    def write(self, data, folder: Path):
        assert not list(folder.iterdir())
        for number, word in enumerate(data):
            if word == "fail":
                raise ValueError("the disk is full")
            (folder / f"{number}.txt").write_text(word)


def words(tmp_path, version=None):
    return Words(filepath=(tmp_path / "words").as_posix(), version=version)


def test_a_folder_comes_back(tmp_path):
    dataset = words(tmp_path)
    assert not dataset.exists()
    dataset.save(["a", "b"])
    assert dataset.exists()
    assert dataset.load() == ["a", "b"]


@pytest.mark.parametrize("made_by_us", [True, False])
def test_a_folder_that_is_there_is_never_replaced(tmp_path, made_by_us):
    dataset = words(tmp_path)
    if made_by_us:
        dataset.save(["mine"])
    else:
        (tmp_path / "words").mkdir()
        (tmp_path / "words/0.txt").write_text("mine")
    with pytest.raises(DatasetError, match="words is there already and is not replaced; move it, or set versioned"):
        dataset.save(["d"])
    assert dataset.load() == ["mine"]


def test_a_link_that_leads_nowhere_is_not_replaced(tmp_path):
    (tmp_path / "words").symlink_to(tmp_path / "gone")
    with pytest.raises(DatasetError, match="words is there already"):
        words(tmp_path).save(["d"])
    assert (tmp_path / "words").is_symlink()


def test_missing_parents_are_made(tmp_path):
    dataset = words(tmp_path / "deep" / "down")
    dataset.save(["a"])
    assert dataset.load() == ["a"]


def test_a_failing_first_write_leaves_no_dataset_behind(tmp_path):
    dataset = words(tmp_path)
    with pytest.raises(DatasetError, match="the disk is full"):
        dataset.save(["a", "fail"])
    assert not dataset.exists()
    assert not (tmp_path / "words").exists()


def test_the_next_write_succeeds_and_clears_what_a_failed_one_left(tmp_path):
    dataset = words(tmp_path)
    with pytest.raises(DatasetError, match="the disk is full"):
        dataset.save(["a", "b", "c", "fail"])
    dataset.save(["d"])
    assert dataset.load() == ["d"]
    assert [path.name for path in tmp_path.iterdir()] == ["words"]


def test_a_failing_version_is_not_taken_for_the_newest(tmp_path):
    words(tmp_path, Version(None, OLD)).save(["old"])
    with pytest.raises(DatasetError, match="the disk is full"):
        words(tmp_path, Version(None, NEW)).save(["new", "fail"])
    newest = words(tmp_path, Version(None, None))
    assert newest.list_versions(full_path=False) == [OLD]
    assert newest.load() == ["old"]


def test_versions_live_side_by_side(tmp_path):
    words(tmp_path, Version(None, OLD)).save(["old"])
    words(tmp_path, Version(None, NEW)).save(["new"])
    assert words(tmp_path, Version(OLD, None)).load() == ["old"]
    assert words(tmp_path, Version(NEW, None)).load() == ["new"]
    assert words(tmp_path, Version(None, None)).load() == ["new"]


def test_a_version_is_written_once(tmp_path):
    words(tmp_path, Version(None, OLD)).save(["first"])
    with pytest.raises(DatasetError, match="must not exist if versioning is enabled"):
        words(tmp_path, Version(None, OLD)).save(["second"])
    assert words(tmp_path, Version(OLD, None)).load() == ["first"]


def test_a_missing_folder_says_what_to_do(tmp_path):
    with pytest.raises(DatasetError, match=r"words does not exist; put it there, or correct its filepath") as error:
        words(tmp_path).load()
    assert len(str(error.value).splitlines()) == 1


def test_what_is_there_but_no_folder_is_not_said_to_be_missing(tmp_path):
    (tmp_path / "words").symlink_to(tmp_path / "gone")
    with pytest.raises(DatasetError, match=r"words is a link to .*gone, which does not exist; put it there"):
        words(tmp_path).load()
    (tmp_path / "words").unlink()
    (tmp_path / "words").write_text("a file")
    with pytest.raises(DatasetError, match="words is no folder, where a folder is expected"):
        words(tmp_path).load()


def test_a_missing_version_is_named(tmp_path):
    words(tmp_path, Version(None, OLD)).save(["old"])
    with pytest.raises(DatasetError, match=f"{NEW}.*does not exist"):
        words(tmp_path, Version(NEW, None)).load()
    assert not words(tmp_path, Version(NEW, None)).exists()


def test_no_version_at_all_does_not_exist(tmp_path):
    assert not words(tmp_path, Version(None, None)).exists()
