"""What tables of tensors and tables of images have in common: rows in files of equal size, and an index."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from onex_distill.storage.files import sha256_of

INDEX_FILE = "index.parquet"


class Shards:
    """How the rows of a table are divided into files; what is there already is kept.

    Processes that write different shards may share a folder.
    """

    def __init__(self, folder: Path, rows: int, rows_per_shard: int, name: Callable[[int], str]) -> None:
        """Make the folder. ``name`` gives the file of a shard's number."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.rows, self.rows_per_shard = folder, rows, rows_per_shard
        self.shards = -(-rows // rows_per_shard)
        self._name = name

    def path(self, number: int) -> Path:
        """The file of one shard."""
        return self.folder / self._name(number)

    @property
    def paths(self) -> list[Path]:
        """The files of all shards."""
        return [self.path(number) for number in range(self.shards)]

    def rows_of(self, number: int) -> range:
        """The table's rows in one shard."""
        start = number * self.rows_per_shard
        return range(start, min(start + self.rows_per_shard, self.rows))

    def has(self, number: int) -> bool:
        """Whether a shard is complete."""
        return self.path(number).is_file()

    def check_rows(self, index: pd.DataFrame) -> None:
        """Raise ValueError for an index with another number of rows."""
        if len(index) != self.rows:
            raise ValueError(f"the index has {len(index)} rows, the table {self.rows}")

    def write_index(self, index: pd.DataFrame) -> str:
        """Write what is known of every row; SHA-256 of the file."""
        path = self.folder / INDEX_FILE
        index.to_parquet(path)
        return sha256_of(path)


def verified_index(folder: Path, checksum: str) -> Path:
    """The index of a table. Raises ValueError when it is missing or damaged."""
    path = folder / INDEX_FILE
    if not path.is_file() or sha256_of(path) != checksum:
        raise ValueError(f"{path} is missing or damaged; make the table again")
    return path


def ranges(rows: int, size: int) -> Iterator[range]:
    """Consecutive ranges of at most ``size`` that cover so many rows."""
    for start in range(0, rows, size):
        yield range(start, min(start + size, rows))
