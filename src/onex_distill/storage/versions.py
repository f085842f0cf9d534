"""Versions of what is stored: ``<path>/<version>/<name>``, in the order of their names."""

import re
from pathlib import Path

VERSION = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}\.\d{2}\.\d{2}\.\d{3}Z")


def versions_of(path: Path) -> list[str]:
    """The versions of one dataset that are there, the oldest first."""
    folders = path.iterdir() if path.is_dir() else ()
    return sorted(folder.name for folder in folders if VERSION.fullmatch(folder.name) and (folder / path.name).exists())


def version_path(path: Path, version: str) -> Path:
    """Where a version of a dataset is."""
    return path / version / path.name
