"""A table whose columns are tensors: an index (pandas) and, for every row, one slice of each named tensor.

On disk it is a folder: ``index.parquet`` and shards ``part-00000.safetensors``, each holding ``rows_per_shard`` rows of
every column and a checksum of every row. Shards are memory-mapped and only the rows that are asked for are read and
verified, so that a table may be far larger than memory. ``table.json`` holds checksums of itself, of the index and of
the shards' headers, so that no damage is taken for data.

Shapes: N rows; a column is (N, ...).
"""

import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from onex_distill.parameters import Params
from onex_distill.storage.files import complete, sha256_of, write_text
from onex_distill.storage.shards import INDEX_FILE, Shards, ranges, verified_index

ROWS_PER_SHARD = 4096
CHECKSUM = ".crc32"
TABLE_FILE = "table.json"
ONLINE_FILE = "online.json"
ONLINE_MODULE = "onex_distill.models.online"
LONGEST_HEADER = 2**20  # bytes; what a damaged length may make us read


class TensorTable:
    """A table on disk. ``TensorTable.write`` makes one from tensors in memory, ``TableWriter`` shard by shard."""

    def __init__(self, folder: Path) -> None:
        """Open a finished table. Raises ValueError when its description is damaged or a shard is missing."""
        self.folder = folder
        try:
            meta = _read_meta(folder / TABLE_FILE)
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} is no finished table ({error}); make it again") from error
        self.names: list[str] = meta["columns"]
        self.rows_per_shard: int = meta["rows_per_shard"]
        self._length: int = meta["rows"]
        self._headers: dict[str, str] = meta["shards"]
        self._index_checksum: str = meta["index"]
        missing = [name for name in self._headers if not (folder / name).is_file()]
        if missing:
            raise ValueError(f"{folder} should hold {len(self._headers)} shards but lacks {missing[0]}; make it again")

    @classmethod
    def write(
        cls, folder: Path, index: pd.DataFrame, columns: Mapping[str, Tensor], rows_per_shard: int = ROWS_PER_SHARD
    ) -> "TensorTable":
        """Write tensors (N, ...) and their index of N rows into a folder, and open it.

        Args:
            folder: Where it is written.
            index: What is known of every row.
            columns: Tensors (N, ...) by name.
            rows_per_shard: Rows that share a file.

        Returns:
            The table.

        Raises:
            ValueError: A column has another number of rows than the index.
        """
        for name, column in columns.items():
            if len(column) != len(index):
                raise ValueError(f"column {name!r} has {len(column)} rows, the index {len(index)}")
        writer = TableWriter(folder, len(index), rows_per_shard)
        for number in range(writer.shards):
            rows = writer.rows_of(number)
            writer.write(number, {name: column[rows.start : rows.stop] for name, column in columns.items()})
        return writer.finish(index)

    @cached_property
    def index(self) -> pd.DataFrame:
        """What is known of every row. Raises ValueError when it is damaged."""
        return pd.read_parquet(verified_index(self.folder, self._index_checksum))

    def rows_where(self, column: str, value: str) -> np.ndarray:
        """Rows whose index holds ``value``, without loading its other columns."""
        path = verified_index(self.folder, self._index_checksum)
        table = pq.read_table(path, columns=[column], memory_map=True)
        matches = pc.equal(pc.cast(table[column], "string"), value)
        return np.flatnonzero(matches.to_numpy())

    def __len__(self) -> int:
        return self._length

    def read(self, name: str, rows: Sequence[int] | Tensor | np.ndarray) -> Tensor:
        """The given rows of a column, (len(rows), ...). Raises ValueError when one of them is damaged."""
        if name not in self.names:
            raise KeyError(f"no column {name!r}; the table has {self.names}")
        positions = torch.tensor(np.asarray(rows), dtype=torch.int64)
        if len(positions) and not (int(positions.min()) >= 0 and int(positions.max()) < len(self)):
            raise IndexError(f"rows {positions.min()} to {positions.max()} asked of a table of {len(self)} rows")
        numbers = positions // self.rows_per_shard
        parts, order = [], []
        for number in numbers.unique().tolist() or [0]:
            places = (numbers == number).nonzero()[:, 0]
            parts.append(self._read_shard(name, number, positions[places] - number * self.rows_per_shard))
            order.append(places)
        return torch.cat(parts)[torch.cat(order).argsort()]

    def column(self, name: str) -> Tensor:
        """A whole column, (N, ...)."""
        return self.read(name, range(len(self)))

    def batches(self, batch_size: int) -> Iterator[range]:
        """Consecutive row ranges that cover the table."""
        return ranges(len(self), batch_size)

    @property
    def handle(self) -> "TableFolder":
        """The table by its path."""
        return TableFolder(path=self.folder)

    def _read_shard(self, name: str, number: int, rows: Tensor) -> Tensor:
        path = self.folder / _shard_name(number)
        try:
            if _header_checksum(path) != self._headers[path.name]:
                raise ValueError(f"shard {path} is damaged (its header differs); make the table again")
            with safe_open(path, framework="pt") as file:
                values, checksums = file.get_tensor(name)[rows], file.get_tensor(name + CHECKSUM)[rows]
        except (SafetensorError, OSError) as error:
            raise ValueError(f"shard {path} is damaged ({error}); make the table again") from error
        wrong = (_row_checksums(values) != checksums).nonzero()[:, 0]
        if len(wrong):
            raise ValueError(f"shard {path} is damaged (row {int(rows[wrong[0]])} of {name!r}); make the table again")
        return values


class TableFolder(Params):
    """A finished table by its path, as jobs hand it around."""

    path: Path

    def open(self) -> TensorTable:
        """The table."""
        return open_table(self.path)

    def fingerprint(self) -> str:
        """SHA-256 over the checksums of all rows and of the index; of what online rows are made from."""
        if (self.path / ONLINE_FILE).is_file():
            parts = (sha256_of(self.path / name) for name in (ONLINE_FILE, INDEX_FILE))
            return hashlib.sha256("".join(parts).encode()).hexdigest()
        return sha256_of(self.path / TABLE_FILE)


def open_table(folder: Path) -> TensorTable:
    """The table in a folder: stored, or one whose rows are made when they are read.

    The second kind needs models, which stand above this room, so its class is named and not imported here. Raises
    ValueError when the table is damaged.
    """
    if (folder / ONLINE_FILE).is_file():
        online: type[TensorTable] = import_module(ONLINE_MODULE).OnlineEmbeddings
        return online(folder)
    return TensorTable(folder)


class TableWriter(Shards):
    """Writes a table shard by shard, in any order and from several processes; what is there already is kept."""

    def __init__(self, folder: Path, rows: int, rows_per_shard: int = ROWS_PER_SHARD) -> None:
        super().__init__(folder, rows, rows_per_shard, _shard_name)

    def write(self, number: int, columns: Mapping[str, Tensor]) -> None:
        """Write one shard under a temporary name, sync it and rename it."""
        values = {name: column.detach().cpu().contiguous() for name, column in columns.items()}
        checksums = {name + CHECKSUM: _row_checksums(column) for name, column in values.items()}
        digest = hashlib.sha256(b"".join(checksums[key].numpy().tobytes() for key in sorted(checksums))).hexdigest()
        with complete(self.path(number)) as partial:
            save_file(values | checksums, partial, metadata={"digest": digest})

    def finish(self, index: pd.DataFrame) -> TensorTable:
        """Write the index of all rows and open the table."""
        self.check_rows(index)
        index_checksum = self.write_index(index.reset_index(drop=True))
        names: list[str] = []
        for path in self.paths[:1]:
            with safe_open(path, framework="pt") as file:
                names = sorted(name for name in file.keys() if not name.endswith(CHECKSUM))  # noqa: SIM118
        meta = {
            "columns": names,
            "rows": self.rows,
            "rows_per_shard": self.rows_per_shard,
            "shards": {path.name: _header_checksum(path) for path in self.paths},
            "index": index_checksum,
        }
        write_text(self.folder / TABLE_FILE, json.dumps({"table": meta, "checksum": _meta_checksum(meta)}))
        return TensorTable(self.folder)


def copy_table(table: TensorTable, folder: Path) -> None:
    """Copy the files of a table into an existing folder."""
    shutil.copytree(table.folder, folder, dirs_exist_ok=True)


def _shard_name(number: int) -> str:
    return f"part-{number:05d}.safetensors"


def _read_meta(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or content.get("checksum") != _meta_checksum(content.get("table")):
        raise ValueError(f"{path.name} is damaged")
    meta: dict[str, Any] = content["table"]
    return meta


def _meta_checksum(meta: object) -> str:
    return hashlib.sha256(json.dumps(meta).encode()).hexdigest()


def _header_checksum(path: Path) -> str:
    """SHA-256 of a shard's names, types, shapes and offsets, and of the digest of its rows' checksums."""
    with path.open("rb") as file:
        length = file.read(8)
        return hashlib.sha256(length + file.read(min(int.from_bytes(length, "little"), LONGEST_HEADER))).hexdigest()


def _row_checksums(column: Tensor) -> Tensor:
    """CRC-32 of every row's bytes, (N,) int64."""
    rows = column.contiguous().reshape(len(column), -1) if len(column) else column.reshape(0, 1)
    data = rows.view(torch.uint8).numpy()
    return torch.tensor([zlib.crc32(row) for row in data], dtype=torch.int64)
