"""Folders of generated images."""

import shutil
from pathlib import Path

import pandas as pd
from kedro_datasets._typing import ImagePreview
from PIL import Image

from onex_distill.datasets.folder import FolderDataset
from onex_distill.datasets.previews import captioned


class GeneratedImagesDataset(FolderDataset):
    """PNGs with a ``metadata.jsonl`` of their captions and settings; loads as the folder's path."""

    def read(self, folder: Path) -> Path:
        """The folder."""
        return folder

    def write(self, data: Path, folder: Path) -> None:
        """Copy the images of a run."""
        shutil.copytree(data, folder, dirs_exist_ok=True)

    def preview(self, images: int = 8) -> ImagePreview:
        """The first images with their captions."""
        folder = self.load()
        records = pd.read_json(folder / "metadata.jsonl", lines=True, nrows=images)
        pictures = [Image.open(folder / name) for name in records["file_name"]]
        return captioned(pictures, records["text"].tolist())
