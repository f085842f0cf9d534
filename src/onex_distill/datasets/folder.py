"""The common part of datasets that are folders: versions, and writing under a temporary name."""

import shutil
from abc import abstractmethod
from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io.core import AbstractVersionedDataset, DatasetError, Version

from onex_distill.storage.files import absent, replace_folder


class FolderDataset(AbstractVersionedDataset[Any, Any]):
    """A dataset that is one local folder; subclasses read and write its files."""

    writes_whole = True  # as the catalog has to know

    def __init__(
        self, *, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(PurePosixPath(filepath), version)
        self.metadata = metadata

    @abstractmethod
    def read(self, folder: Path) -> Any:
        """Read the data from its folder."""

    @abstractmethod
    def write(self, data: Any, folder: Path) -> None:
        """Write the data into an empty folder."""

    def load(self) -> Any:
        """Load the pinned or the newest version."""
        folder = Path(self._get_load_path())
        if not folder.is_dir():
            raise DatasetError(f"{absent(folder)}; put it there, or correct its filepath in the catalog")
        return self.read(folder)

    def save(self, data: Any) -> None:
        """Write to a temporary folder beside the final one, then rename, so that no half-written folder is seen.

        Raises DatasetError where a folder has the name already: it may hold what no run made.
        """
        folder = Path(self._get_save_path())
        if folder.exists() or folder.is_symlink():
            raise DatasetError(f"{folder} is there already and is not replaced; move it, or set versioned: true")
        partial = folder.with_name(f".partial-{folder.name}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            self.write(data, partial)
            replace_folder(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _exists(self) -> bool:
        return Path(self._get_load_path()).is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}


class ClassFolderDataset(FolderDataset):
    """A folder that holds an instance of one class; ``class_name`` is its dotted name."""

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

    def _describe(self) -> dict[str, Any]:
        return {**super()._describe(), "class_name": self.class_name}
