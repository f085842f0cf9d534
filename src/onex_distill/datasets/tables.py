"""Tables of tensors as catalog entries."""

from pathlib import Path

import pandas as pd
from kedro.io.core import DatasetError
from kedro_datasets._typing import TablePreview

from onex_distill.datasets.folder import FolderDataset
from onex_distill.storage.tensor_table import TensorTable, copy_table, open_table


class TensorTableDataset(FolderDataset):
    """A ``TensorTable`` as a folder of safetensors shards with a parquet index; previewed by the head of its index."""

    def read(self, folder: Path) -> TensorTable:
        """Open the table; rows are read when they are asked for."""
        try:
            return open_table(folder)
        except ValueError as error:
            raise DatasetError(str(error)) from error

    def write(self, data: TensorTable, folder: Path) -> None:
        """Copy the table's files."""
        copy_table(data, folder)

    def preview(self, nrows: int = 10) -> TablePreview:
        """The first rows of the index."""
        index: pd.DataFrame = self.load().index.head(nrows)
        return TablePreview(index.to_dict(orient="split"))
