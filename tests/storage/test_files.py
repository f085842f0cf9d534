import pandas as pd
import pytest

from onex_distill.storage.files import complete, write_text
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
