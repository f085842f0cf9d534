"""A table whose columns are tensors: an index (pandas) and, for every row, one slice of each named tensor.

On disk it is a folder: ``index.parquet`` and shards ``part-00000.safetensors``, each holding ``rows_per_shard`` rows of
every column. Rows are read from memory-mapped shards, so that opening a table costs nothing.

Shapes: N rows; a column is (N, ...).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

ROWS_PER_SHARD = 4096


class TensorTable:
    """An in-memory or on-disk table; both read the same way."""

    def __init__(self, index: pd.DataFrame, columns: Mapping[str, Tensor]) -> None:
        for name, column in columns.items():
            if len(column) != len(index):
                raise ValueError(f"column {name!r} has {len(column)} rows, the index {len(index)}")
        self.index = index.reset_index(drop=True)
        self._columns: Mapping[str, Tensor | _ShardedColumn] = dict(columns)

    @classmethod
    def open(cls, folder: Path) -> "TensorTable":
        """Open a folder that ``save`` wrote. Raises ValueError when a shard is missing or damaged."""
        meta = json.loads((folder / "table.json").read_text())
        shards = sorted(folder.glob("part-*.safetensors"))
        if len(shards) != meta["shards"]:
            raise ValueError(f"{folder} should hold {meta['shards']} shards but holds {len(shards)}; make it again")
        table = cls(pd.read_parquet(folder / "index.parquet"), {})
        table._columns = {name: _ShardedColumn(name, shards, meta["rows_per_shard"]) for name in meta["columns"]}
        return table

    def save(self, folder: Path, rows_per_shard: int = ROWS_PER_SHARD) -> None:
        """Write the table into an existing empty folder."""
        self.index.to_parquet(folder / "index.parquet")
        starts = range(0, len(self), rows_per_shard)
        for number, start in enumerate(starts):
            rows = range(start, min(start + rows_per_shard, len(self)))
            part = {name: self.read(name, rows).contiguous() for name in self._columns}
            save_file(part, folder / f"part-{number:05d}.safetensors")
        meta = {"columns": sorted(self._columns), "rows_per_shard": rows_per_shard, "shards": len(starts)}
        (folder / "table.json").write_text(json.dumps(meta))

    def __len__(self) -> int:
        return len(self.index)

    def read(self, name: str, rows: Sequence[int] | Tensor | np.ndarray) -> Tensor:
        """The given rows of a column, (len(rows), ...)."""
        if name not in self._columns:
            raise KeyError(f"no column {name!r}; the table has {sorted(self._columns)}")
        positions = torch.tensor(np.asarray(rows), dtype=torch.int64)
        if len(positions) and not (int(positions.min()) >= 0 and int(positions.max()) < len(self)):
            raise IndexError(f"rows {positions.min()} to {positions.max()} asked of a table of {len(self)} rows")
        return self._columns[name][positions]

    def column(self, name: str) -> Tensor:
        """A whole column, (N, ...)."""
        return self.read(name, range(len(self)))

    def select(self, rows: Sequence[int] | np.ndarray) -> "TensorTable":
        """An in-memory table of some rows."""
        positions = list(rows)
        columns = {name: self.read(name, positions) for name in self._columns}
        return TensorTable(self.index.iloc[positions], columns)

    def batches(self, batch_size: int) -> Iterator[range]:
        """Consecutive row ranges that cover the table."""
        for start in range(0, len(self), batch_size):
            yield range(start, min(start + batch_size, len(self)))


class _ShardedColumn:
    """One column spread over memory-mapped safetensors files."""

    def __init__(self, name: str, shards: list[Path], rows_per_shard: int) -> None:
        self.name = name
        self.shards = shards
        self.rows_per_shard = rows_per_shard

    def __getitem__(self, rows: Tensor) -> Tensor:
        if not len(rows):
            return self._read_shard(0)[rows]
        numbers = rows // self.rows_per_shard
        parts: list[Tensor] = []
        order: list[Tensor] = []
        for number in numbers.unique().tolist():
            places = (numbers == number).nonzero()[:, 0]
            parts.append(self._read_shard(number)[rows[places] - number * self.rows_per_shard])
            order.append(places)
        values = torch.cat(parts)
        return values[torch.cat(order).argsort()]

    def _read_shard(self, number: int) -> Tensor:
        try:
            with safe_open(self.shards[number], framework="pt") as file:
                tensor: Tensor = file.get_tensor(self.name)
                return tensor
        except (SafetensorError, OSError) as error:
            raise ValueError(f"shard {self.shards[number]} is damaged ({error}); make the table again") from error
