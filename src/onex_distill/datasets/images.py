"""Images as catalog entries that kedro viz shows."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from kedro.io.core import DatasetError
from kedro_datasets._typing import ImagePreview
from kedro_datasets.pillow import ImageDataset

from onex_distill.datasets.folder import FolderDataset
from onex_distill.datasets.previews import as_png, captioned, captions_of, rows_of_captions

if TYPE_CHECKING:
    from onex_distill.storage.image_table import ImageTable


class PreviewedImageDataset(ImageDataset):
    """Pillow's dataset with a preview."""

    def preview(self) -> ImagePreview:
        """The image as base64-encoded PNG."""
        return as_png(self.load())


class ImageTableDataset(FolderDataset):
    """An ``ImageTable`` as a folder of PNG shards with a parquet index; previewed by its first images."""

    def read(self, folder: Path) -> "ImageTable":
        """Open the table; images are decoded when they are asked for."""
        from onex_distill.storage.image_table import ImageTable  # a catalog can be listed and drawn without torch

        try:
            return ImageTable(folder)
        except ValueError as error:
            raise DatasetError(str(error)) from error

    def write(self, data: "ImageTable", folder: Path) -> None:
        """Copy the table's files."""
        shutil.copytree(data.folder, folder, dirs_exist_ok=True)

    def preview(self, images: int = 8) -> ImagePreview:
        """The first images of different captions, with them, as base64-encoded PNG."""
        table = self.load()
        rows = rows_of_captions(table.index, images)
        return captioned(table.pictures(rows), captions_of(table.index.iloc[rows]))
