"""Folders of models: anything with ``save_pretrained`` and ``from_pretrained``."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io.core import DatasetError, Version
from kedro_datasets._typing import HTMLPreview

from onex_distill.datasets.folder import ClassFolderDataset, FolderDataset
from onex_distill.datasets.hub import download_teacher
from onex_distill.datasets.previews import card

if TYPE_CHECKING:
    from onex_distill.models.teacher import TeacherFolder
    from onex_distill.storage.model_folder import ModelFolder

# storage is imported where it is used, so that a catalog can be listed and drawn without torch


class ModelFolderDataset(ClassFolderDataset):
    """A model, pipeline or tokenizer in its library's own folder format.

    Loads as a ``ModelFolder``, whose ``load()`` gives the model: what is large is read where it is needed, by the ranks
    that need it. Saves a model, or the copy of another folder. ``class_name`` is the dotted name of the class, for
    example ``diffusers.AutoencoderKL``.
    """

    def read(self, folder: Path) -> "ModelFolder":
        """The folder, after its checksums."""
        from onex_distill.storage.model_folder import ModelFolder, verify

        try:
            verify(folder)
        except ValueError as error:
            raise DatasetError(str(error)) from error
        return ModelFolder(path=folder, class_name=self.class_name)

    def write(self, data: Any, folder: Path) -> None:
        """Copy a folder, or save a model as safetensors."""
        from onex_distill.models.teacher import TeacherFolder
        from onex_distill.storage.model_folder import ModelFolder, save_model

        if isinstance(data, ModelFolder | TeacherFolder):
            shutil.copytree(data.path, folder, dirs_exist_ok=True)
        else:
            save_model(data, folder)

    def preview(self) -> HTMLPreview:
        """A card: class, size, configuration, and the run that made it."""
        return card(self.class_name, Path(self._get_load_path()))


class TeacherDataset(FolderDataset):
    """A Stable Diffusion 3 folder, checked on load.

    A missing folder is made from ``hub_model``, for example ``stabilityai/stable-diffusion-3-medium-diffusers``, which
    is downloaded, or from ``single_file``, a .safetensors checkpoint of the original layout, with the other components
    of the diffusers folder ``config``.
    """

    def __init__(
        self,
        *,
        filepath: str,
        hub_model: str | None = None,
        single_file: str | None = None,
        config: str | None = None,
        version: Version | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath, version=version, metadata=metadata)
        if (single_file is None) != (config is None):
            raise DatasetError(f"single_file and config of {filepath} belong together; give both or none")
        self.hub_model, self.single_file, self.config = hub_model, single_file, config

    @property
    def can_fetch(self) -> bool:
        """Whether a missing folder is made on load."""
        return self.hub_model is not None or self.single_file is not None

    def load(self) -> "TeacherFolder":
        """The folder, downloaded or unpacked if it has to be."""
        folder = Path(self._get_load_path())
        if self.single_file is not None and self.config is not None and not folder.is_dir():
            from onex_distill.datasets.single_file import unpack_single_file

            unpack_single_file(Path(self.single_file), Path(self.config), folder)
        if self.hub_model is not None and not folder.exists() and not folder.is_symlink():
            download_teacher(self.hub_model, folder)
        return super().load()

    def read(self, folder: Path) -> "TeacherFolder":
        """The folder; raises DatasetError when a component is missing or does not fit the others."""
        from onex_distill.models.teacher import TeacherFolder
        from onex_distill.storage.model_folder import verify

        try:
            verify(folder)
            return TeacherFolder(path=folder).check()
        except ValueError as error:
            raise DatasetError(str(error)) from error

    def write(self, data: Any, folder: Path) -> None:
        """Save a pipeline."""
        from onex_distill.storage.model_folder import save_model

        save_model(data, folder)

    def preview(self) -> HTMLPreview:
        """A card: class, size, configuration, and the run that made it."""
        return card("diffusers.StableDiffusion3Pipeline", Path(self._get_load_path()))

    def _describe(self) -> dict[str, Any]:
        return {**super()._describe(), "hub_model": self.hub_model}
