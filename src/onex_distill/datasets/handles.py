"""Artefacts that name other artefacts: a small file of paths and settings in place of many inputs of a node."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kedro.io.core import DatasetError
from kedro_datasets._typing import JSONPreview
from pydantic import BaseModel, ValidationError

from onex_distill.datasets.folder import ClassFolderDataset
from onex_distill.storage.files import write_text
from onex_distill.storage.versions import VERSION, versions_of

INSIDE = "data:"  # begins a path that is relative to the data folder
FILE = "handles.json"


class Outdated(NamedTuple):
    """A dataset that is named in an older version than its newest."""

    name: str
    version: str
    newest: str


class HandlesDataset(ClassFolderDataset):
    """A frozen model of paths and settings, as JSON; ``class_name`` is its dotted name.

    Paths below the data folder, two levels above ``filepath``, are stored relative to it, so that the whole folder can
    be moved.
    """

    @property
    def _root(self) -> Path:
        return Path(self._filepath).parents[1]

    def read(self, folder: Path) -> BaseModel:
        """The model. Raises DatasetError when the file is missing or is not of its class."""
        from onex_distill.storage.model_folder import class_of  # a catalog can be listed and drawn without torch

        try:
            model: BaseModel = class_of(self.class_name).model_validate(self._content(folder))
        except (OSError, ValueError, ValidationError) as error:
            reason = next(iter(str(error).splitlines()))
            raise DatasetError(f"{folder} does not describe a {self.class_name} ({reason}); make it again") from error
        return model

    def write(self, data: BaseModel, folder: Path) -> None:
        """Write the model."""
        write_text(folder / FILE, json.dumps(_map_leaves(data.model_dump(), self._relative), indent=1))

    def outdated(self) -> Outdated | None:
        """The first dataset that is named in an older version than its newest on disk; None when pinned or damaged."""
        if self._version is not None and self._version.load is not None:
            return None
        try:
            leaves = list(_leaves(self._content(Path(self._get_load_path()))))
        except (OSError, ValueError):  # which a load says
            return None
        for path in (Path(leaf) for leaf in leaves if isinstance(leaf, str)):
            for inside in (path, *path.parents):
                version = inside.parent.name
                newest = versions_of(inside.parents[1])[-1:] if VERSION.fullmatch(version) else []
                if newest and newest[0] > version:
                    return Outdated(inside.name, version, newest[0])
        return None

    def preview(self) -> JSONPreview:
        """The file as it is."""
        return JSONPreview((Path(self._get_load_path()) / FILE).read_text())

    def _content(self, folder: Path) -> Any:
        return _map_leaves(json.loads((folder / FILE).read_text()), self._absolute)

    def _relative(self, value: Any) -> Any:
        if not isinstance(value, Path):
            return value
        inside = value.is_relative_to(self._root)
        return INSIDE + value.relative_to(self._root).as_posix() if inside else str(value)

    def _absolute(self, value: Any) -> Any:
        if isinstance(value, str) and value.startswith(INSIDE):
            return str(self._root / value.removeprefix(INSIDE))
        return value


def _map_leaves(value: Any, change: Any) -> Any:
    """Nested mappings and sequences with every leaf changed."""
    if isinstance(value, Mapping):
        return {key: _map_leaves(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map_leaves(item, change) for item in value]
    return change(value)


def _leaves(value: Any) -> Iterator[Any]:
    """What ``_map_leaves`` changes."""
    if isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(item)
    else:
        yield value
