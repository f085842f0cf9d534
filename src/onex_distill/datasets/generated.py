"""Folders of generated images."""

import shutil
from pathlib import Path

import pandas as pd
from kedro_datasets._typing import TablePreview

from onex_distill.datasets.folder import FolderDataset


class GeneratedImagesDataset(FolderDataset):
    """PNGs with a ``metadata.jsonl`` of their captions and settings; loads as the folder's path."""

    def read(self, folder: Path) -> Path:
        """The folder."""
        return folder

    def write(self, data: Path, folder: Path) -> None:
        """Copy the images of a run."""
        shutil.copytree(data, folder, dirs_exist_ok=True)

    def preview(self, nrows: int = 10) -> TablePreview:
        """The first images' names, captions and settings."""
        records = pd.read_json(self.load() / "metadata.jsonl", lines=True, nrows=nrows)
        return TablePreview(records.to_dict(orient="split"))
