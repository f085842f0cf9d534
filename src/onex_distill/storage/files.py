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
    sync_tree(partial)
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


def sync_tree(path: Path) -> None:
    """Wait until a file, or a folder and all that is in it, is on the disk."""
    for part in (*path.rglob("*"), path):
        sync(part)


def absent(path: Path) -> str:
    """The path, and why what is expected there is not: a link into nothing, something of another kind, or nothing."""
    if path.is_dir():
        return f"{path} is a folder, where a file is expected"
    if path.exists():
        return f"{path} is no folder, where a folder is expected"
    if path.is_symlink():
        return f"{path} is a link to {path.readlink()}, which does not exist"
    return f"{path} does not exist"
