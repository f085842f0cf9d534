"""Tables of tensors as catalog entries."""

from pathlib import Path
from typing import TYPE_CHECKING

from kedro.io.core import DatasetError
from kedro_datasets._typing import TablePreview

from onex_distill.datasets.folder import FolderDataset

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
        index: pd.DataFrame = self.load().index.head(nrows)
        return TablePreview(index.to_dict(orient="split"))
