"""Folders of models: anything with ``save_pretrained`` and ``from_pretrained``."""

import shutil
from pathlib import Path
from typing import Any

from kedro.io.core import DatasetError, Version

from onex_distill.datasets.folder import FolderDataset
from onex_distill.datasets.hub import download_teacher
from onex_distill.models.teacher import TeacherFolder
from onex_distill.storage.model_folder import ModelFolder, save_model, verify


class ModelFolderDataset(FolderDataset):
    """A model, pipeline or tokenizer in its library's own folder format.

    Loads as a ``ModelFolder``, whose ``load()`` gives the model: what is large is read where it is needed, by the ranks
    that need it. Saves a model, or the copy of another folder. ``class_name`` is the dotted name of the class, for
    example ``diffusers.AutoencoderKL``.
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

    def read(self, folder: Path) -> ModelFolder:
        """The folder, after its checksums."""
        try:
            verify(folder)
        except ValueError as error:
            raise DatasetError(str(error)) from error
        return ModelFolder(path=folder, class_name=self.class_name)

    def write(self, data: Any, folder: Path) -> None:
        """Copy a folder, or save a model as safetensors."""
        if isinstance(data, ModelFolder | TeacherFolder):
            shutil.copytree(data.path, folder, dirs_exist_ok=True)
        else:
            save_model(data, folder)

    def _describe(self) -> dict[str, Any]:
        return {**super()._describe(), "class_name": self.class_name}


class TeacherDataset(FolderDataset):
    """A Stable Diffusion 3 folder, checked on load.

    ``hub_model``, for example ``stabilityai/stable-diffusion-3-medium-diffusers``, is downloaded into the folder when
    that is missing.
    """

    def __init__(
        self,
        *,
        filepath: str,
        hub_model: str | None = None,
        version: Version | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath, version=version, metadata=metadata)
        self.hub_model = hub_model

    @property
    def can_fetch(self) -> bool:
        """Whether a missing folder is made on load."""
        return self.hub_model is not None

    def load(self) -> TeacherFolder:
        """The folder, downloaded if it has to be."""
        folder = Path(self._get_load_path())
        if self.hub_model is not None and not folder.exists() and not folder.is_symlink():
            download_teacher(self.hub_model, folder)
        return super().load()

    def read(self, folder: Path) -> TeacherFolder:
        """The folder; raises DatasetError when a component is missing or does not fit the others."""
        try:
            verify(folder)
            return TeacherFolder(path=folder).check()
        except ValueError as error:
            raise DatasetError(str(error)) from error

    def write(self, data: Any, folder: Path) -> None:
        """Save a pipeline."""
        save_model(data, folder)

    def _describe(self) -> dict[str, Any]:
        return {**super()._describe(), "hub_model": self.hub_model}
