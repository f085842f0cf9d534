"""Files that are complete or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def complete(path: Path) -> Iterator[Path]:
    """A temporary path to write to; renamed to ``path`` after the block, when its bytes are on the disk."""
    partial = path.with_name(f".partial-{path.name}")
    yield partial
    sync(partial)
    partial.rename(path)


def write_text(path: Path, text: str) -> None:
    """Write a small file, all of it or nothing."""
    with complete(path) as partial:
        partial.write_text(text)


def sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
