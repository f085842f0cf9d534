"""Any one key of a teacher's configs removed, any one of its files replaced: one line, or the same teacher."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onex_distill.models.teacher import TeacherFolder

EXAMPLES = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
CONFIGS = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    *(f"{name}/config.json" for name in ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")),
    *(f"tokenizer{number}/tokenizer_config.json" for number in ("", "_2", "_3")),
]
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 70), st.floats(), st.text(max_size=3), st.just([]), st.just({})
)
CONTENTS = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"", b"{}", b"[]", b"null", b"version https://git-lfs.github.com/spec/v1\n", b"\x08" + bytes(7)]),
)


@pytest.fixture(scope="module")
def files(stored_teacher):
    return sorted(
        path.relative_to(stored_teacher).as_posix()
        for path in stored_teacher.rglob("*")
        if path.is_file() and path.name != "checksums.json"
    )


@pytest.fixture
def folder(stored_teacher, tmp_path):
    copy = Path(shutil.copytree(stored_teacher, tmp_path / "teacher"))
    (copy / "checksums.json").unlink()
    return copy


@contextmanager
def restored(path: Path) -> Iterator[None]:
    """The file as it was, after the block."""
    before = path.read_bytes()
    try:
        yield
    finally:
        path.write_bytes(before)


def accepted(folder: Path) -> bool:
    """Whether the folder passes all checks; it is refused in one line otherwise."""
    try:
        TeacherFolder(path=folder).check().check_weights()
    except ValueError as error:
        message = str(error)
    else:
        return True
    assert len(message.splitlines()) == 1, message
    return False


def sampled(folder: Path) -> None:
    """A teacher that passes is one that works."""
    teacher = TeacherFolder(path=folder)
    pipeline = teacher.load()
    assert teacher.embedding_bytes(4) > 0
    assert teacher.shift > 0
    pipeline("a red circle", num_inference_steps=1, height=32, width=32, max_sequence_length=4, output_type="pt")


@EXAMPLES
@given(data=st.data())
def test_a_config_without_one_key_is_refused_or_works(folder, data):
    path = folder / data.draw(st.sampled_from(CONFIGS))
    content = json.loads(path.read_text())
    content.pop(data.draw(st.sampled_from(sorted(content))))
    with restored(path):
        path.write_text(json.dumps(content))
        if accepted(folder):
            sampled(folder)


@EXAMPLES
@given(data=st.data(), value=VALUES)
def test_a_config_with_another_value_is_refused_in_one_line_or_accepted(folder, data, value):
    path = folder / data.draw(st.sampled_from(CONFIGS))
    content = json.loads(path.read_text())
    key = data.draw(st.sampled_from([*sorted(content), "foreign"]))
    with restored(path):
        path.write_text(json.dumps(content | {key: value}))
        accepted(folder)


@EXAMPLES
@given(data=st.data(), content=CONTENTS)
def test_any_one_file_replaced_is_refused_in_one_line(folder, files, data, content):
    path = folder / data.draw(st.sampled_from(files))
    with restored(path):
        path.write_bytes(content)
        assert not accepted(folder)
