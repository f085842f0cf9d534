"""Folders of models: anything with ``save_pretrained`` and ``from_pretrained``."""

from pathlib import Path
from typing import Any

from diffusers import ConfigMixin
from kedro.io.core import DatasetError, Version
from kedro.utils import load_obj

from onex_distill.datasets.folder import FolderDataset
from onex_distill.models.checks import check_teacher, check_teacher_folder


class ModelFolderDataset(FolderDataset):
    """A model, pipeline or tokenizer saved in its library's own folder format.

    ``class_name`` is the dotted name of the class, for example ``diffusers.StableDiffusion3Pipeline``. Only
    safetensors are read, and nothing inside the folder is executed. ``load_args`` go to ``from_pretrained``.
    """

    def __init__(
        self,
        *,
        filepath: str,
        class_name: str,
        load_args: dict[str, Any] | None = None,
        version: Version | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath, version=version, metadata=metadata)
        self.class_name = class_name
        self.load_args = load_args or {}

    def read(self, folder: Path) -> Any:
        """Load with ``from_pretrained`` from this folder alone."""
        model_class = load_obj(self.class_name)
        model = model_class.from_pretrained(folder, local_files_only=True, use_safetensors=True, **self.load_args)
        _forget_path(model)
        return model

    def write(self, data: Any, folder: Path) -> None:
        """Save with ``save_pretrained`` as safetensors."""
        data.save_pretrained(folder, safe_serialization=True)

    def _describe(self) -> dict[str, Any]:
        return {**super()._describe(), "class_name": self.class_name}


def _forget_path(model: Any) -> None:
    """diffusers notes the folder that a model came from; what is saved later should not name paths of this machine."""
    for part in (model, *getattr(model, "components", {}).values()):
        if isinstance(part, ConfigMixin):
            part.register_to_config(_name_or_path="")


class TeacherDataset(ModelFolderDataset):
    """A Stable Diffusion 3 folder whose components are checked before and after loading."""

    def read(self, folder: Path) -> Any:
        """Load the pipeline; raises DatasetError when a component is missing or does not fit the others."""
        try:
            check_teacher_folder(folder)
            pipeline = super().read(folder)
            check_teacher(pipeline)
        except ValueError as error:
            raise DatasetError(str(error)) from error
        pipeline.set_progress_bar_config(disable=True)
        return pipeline
