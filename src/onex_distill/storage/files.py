"""Files and folders that are complete or not there."""

import os
import shutil
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


def replace_folder(partial: Path, final: Path) -> None:
    """Give a written folder its name, when its bytes are on the disk; one that has it is removed."""
    for path in (*partial.rglob("*"), partial):
        sync(path)
    if final.exists():
        remove_folder(final)
    partial.rename(final)
    sync(final.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder, renamed first, so that half of it is never taken for the whole."""
    trash = folder.with_name(f".removed-{folder.name}")
    shutil.rmtree(trash, ignore_errors=True)
    folder.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
