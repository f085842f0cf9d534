"""Artefacts that name other artefacts: a small file of paths and settings in place of many inputs of a node."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kedro.io.core import DatasetError, Version
from kedro_datasets._typing import JSONPreview
from pydantic import BaseModel, ValidationError

from onex_distill.datasets.folder import FolderDataset
from onex_distill.storage.files import write_text

INSIDE = "data:"  # begins a path that is relative to the data folder
FILE = "handles.json"


class HandlesDataset(FolderDataset):
    """A frozen model of paths and settings, as JSON; ``class_name`` is its dotted name.

    Paths below the data folder, two levels above ``filepath``, are stored relative to it, so that the whole folder can
    be moved.
    """

    def __init__(
        self,
        *,
        filepath: str,
        class_name: str,
        version: Version | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath, version=version, metadata=metadata)
        self.class_name = class_name
        self._root = Path(filepath).parents[1]

    def read(self, folder: Path) -> BaseModel:
        """The model. Raises DatasetError when the file is missing or is not of its class."""
        from onex_distill.storage.model_folder import class_of  # a catalog can be listed and drawn without torch

        try:
            content = _map_leaves(json.loads((folder / FILE).read_text()), self._absolute)
            model: BaseModel = class_of(self.class_name).model_validate(content)
        except (OSError, ValueError, ValidationError) as error:
            reason = next(iter(str(error).splitlines()))
            raise DatasetError(f"{folder} does not describe a {self.class_name} ({reason}); make it again") from error
        return model

    def write(self, data: BaseModel, folder: Path) -> None:
        """Write the model."""
        write_text(folder / FILE, json.dumps(_map_leaves(data.model_dump(), self._relative), indent=1))

    def preview(self) -> JSONPreview:
        """The file as it is."""
        return JSONPreview((Path(self._get_load_path()) / FILE).read_text())

    def _relative(self, value: Any) -> Any:
        if not isinstance(value, Path):
            return value
        inside = value.is_relative_to(self._root)
        return INSIDE + value.relative_to(self._root).as_posix() if inside else str(value)

    def _absolute(self, value: Any) -> Any:
        if isinstance(value, str) and value.startswith(INSIDE):
            return str(self._root / value.removeprefix(INSIDE))
        return value

    def _describe(self) -> dict[str, Any]:
        return {**super()._describe(), "class_name": self.class_name}


def _map_leaves(value: Any, change: Any) -> Any:
    """Nested mappings and sequences with every leaf changed."""
    if isinstance(value, Mapping):
        return {key: _map_leaves(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map_leaves(item, change) for item in value]
    return change(value)
