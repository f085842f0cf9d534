import pandas as pd
import pytest
import torch

from onex_distill.models.online import Encoding, OnlineEmbeddings
from onex_distill.models.teacher import TeacherFolder
from onex_distill.models.text import encode_prompts
from onex_distill.storage.tensor_table import ONLINE_FILE, TableFolder, TensorTable, copy_table

TEXTS = ["a red circle", "the solid green cross", "one hollow blue square"]
PROMPTS = pd.DataFrame({"id": list("abc"), "text": TEXTS, "split": ["train", "heldout", "train"]})


@pytest.fixture
def encoding(stored_teacher):
    return Encoding(teacher=TeacherFolder(path=stored_teacher), max_sequence_length=6, dtype="fp32", device="cpu")


@pytest.fixture
def online(tmp_path, encoding):
    return OnlineEmbeddings.store(tmp_path / "online", PROMPTS, encoding)


def test_rows_are_what_a_stored_table_of_them_holds(online, encoding):
    rows = [2, 0, 2]
    embeds, pooled = encode_prompts(encoding.load(), [TEXTS[row] for row in rows], 6)
    assert torch.equal(online.read("prompt_embeds", rows), embeds)
    assert torch.equal(online.read("pooled_prompt_embeds", torch.tensor(rows)), pooled)
    assert online.read("prompt_embeds", [1]).shape == (1, *embeds.shape[1:])
    with pytest.raises(IndexError, match="rows 0 to 3 asked of 3 prompts"):
        online.read("prompt_embeds", [0, 3])


def test_a_handle_and_a_copy_open_as_what_they_are(online, tmp_path):
    copy_table(online, tmp_path / "copy")
    copy = TableFolder(path=tmp_path / "copy")
    opened = copy.open()
    assert isinstance(opened, OnlineEmbeddings)
    assert len(opened) == 3
    assert opened.rows_where("split", "train").tolist() == [0, 2]
    assert copy.fingerprint() == online.handle.fingerprint()
    assert isinstance(opened, TensorTable)


def test_the_fingerprint_follows_prompts_and_encoding(online, encoding, tmp_path):
    other = OnlineEmbeddings.store(tmp_path / "other", PROMPTS.iloc[:2], encoding)
    longer = OnlineEmbeddings.store(
        tmp_path / "longer", PROMPTS, encoding.model_copy(update={"max_sequence_length": 7})
    )
    assert len({table.handle.fingerprint() for table in (online, other, longer)}) == 3


@pytest.mark.parametrize("content", ["", "{}", "[1]"])
def test_a_damaged_description_is_one_line(online, content):
    (online.folder / ONLINE_FILE).write_text(content)
    with pytest.raises(ValueError, match="does not describe embeddings; run embed_prompts again") as error:
        online.handle.open()
    assert len(str(error.value).splitlines()) == 1


def test_encoders_are_read_when_rows_are(tmp_path, encoding):
    gone = encoding.model_copy(update={"teacher": TeacherFolder(path=tmp_path / "gone")})
    table = OnlineEmbeddings.store(tmp_path / "online", PROMPTS, gone)
    assert table.index["text"].tolist() == TEXTS
    with pytest.raises(ValueError, match=r"gone.* does not exist"):
        table.read("prompt_embeds", [0])


def test_encoders_in_half_precision_give_half_precision(tmp_path, encoding):
    half = OnlineEmbeddings.store(tmp_path / "half", PROMPTS, encoding.model_copy(update={"dtype": "bf16"}))
    assert half.read("prompt_embeds", [0]).dtype == torch.bfloat16
