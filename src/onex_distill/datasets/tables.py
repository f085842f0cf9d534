"""Tables of tensors as catalog entries."""

from pathlib import Path
from typing import TYPE_CHECKING

from kedro.io.core import DatasetError
from kedro_datasets._typing import ImagePreview, TablePreview

from onex_distill.datasets.folder import FolderDataset
from onex_distill.datasets.previews import captioned, captions_of, pictures_of, rounded, rows_of_captions

if TYPE_CHECKING:
    import pandas as pd

    from onex_distill.storage.tensor_table import TensorTable

# storage is imported where it is used, so that a catalog can be listed and drawn without torch


class TensorTableDataset(FolderDataset):
    """A ``TensorTable`` as a folder of safetensors shards with a parquet index; previewed by the head of its index."""

    def read(self, folder: Path) -> "TensorTable":
        """Open the table; rows are read when they are asked for."""
        from onex_distill.storage.tensor_table import open_table

        try:
            return open_table(folder)
        except ValueError as error:
            raise DatasetError(str(error)) from error

    def write(self, data: "TensorTable", folder: Path) -> None:
        """Copy the table's files."""
        from onex_distill.storage.tensor_table import copy_table

        copy_table(data, folder)

    def preview(self, nrows: int = 10) -> TablePreview:
        """The first rows of the index."""
        index: pd.DataFrame = self.load().index
        return rounded(index.head(nrows))


class LatentTableDataset(TensorTableDataset):
    """A table of latents or images; previewed by the first of different captions."""

    def preview(self, images: int = 8) -> ImagePreview:
        """Latents in the colours of their main components, images as they are, with captions."""
        table = self.load()
        rows = rows_of_captions(table.index, images)
        column = "image" if "image" in table.names else "latent"
        return captioned(pictures_of(table.read(column, rows)), captions_of(table.index.iloc[rows]))
