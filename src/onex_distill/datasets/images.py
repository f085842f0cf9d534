"""Images as catalog entries that kedro viz shows."""

import base64
import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from kedro.io.core import DatasetError
from kedro_datasets._typing import ImagePreview
from kedro_datasets.pillow import ImageDataset
from PIL import Image

from onex_distill.datasets.folder import FolderDataset

if TYPE_CHECKING:
    from onex_distill.storage.image_table import ImageTable


class PreviewedImageDataset(ImageDataset):
    """Pillow's dataset with a preview."""

    def preview(self) -> ImagePreview:
        """The image as base64-encoded PNG."""
        buffer = io.BytesIO()
        self.load().save(buffer, format="PNG")
        return ImagePreview(base64.b64encode(buffer.getvalue()).decode())


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
        """The first images side by side, as base64-encoded PNG."""
        table = self.load()
        pictures = table.pictures(range(min(images, len(table))))
        strip = Image.new("RGB", (sum(picture.width for picture in pictures), max(p.height for p in pictures)))
        left = 0
        for picture in pictures:
            strip.paste(picture, (left, 0))
            left += picture.width
        buffer = io.BytesIO()
        strip.save(buffer, format="PNG")
        return ImagePreview(base64.b64encode(buffer.getvalue()).decode())
