"""Images with an index, as lossless files that other tools read.

On disk it is a folder: ``index.parquet`` and shards ``images-00000.tar`` in the layout of webdataset, for every row
``00000012.png`` and ``00000012.json`` (what was measured while it was made). ``table.json`` holds the SHA-256 of the
index and of every shard. Rows are decoded when they are asked for, so that a table may be far larger than memory.

Shapes: N rows; images are RGB uint8 (N, 3, H, W).
"""

import io
import itertools
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from onex_distill.parameters import Params
from onex_distill.storage.files import complete, sha256_of, write_text
from onex_distill.storage.shards import Shards, ranges, verified_index

TABLE_FILE = "table.json"
COMPRESSION = 1  # of PNG; higher levels take three times as long for a few per cent


class ImageTable:
    """A finished table of images."""

    def __init__(self, folder: Path) -> None:
        """Open it. Raises ValueError when its description is damaged or a shard is missing."""
        self.folder = folder
        try:
            meta = json.loads((folder / TABLE_FILE).read_text())
            self.rows_per_shard = int(meta["rows_per_shard"])
            self._shards: dict[str, str] = dict(meta["shards"])
            self._index: str = meta["index"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder} is no finished table of images ({error}); make it again") from error
        missing = [name for name in self._shards if not (folder / name).is_file()]
        if missing:
            raise ValueError(f"{folder} lacks {missing[0]}, one of {len(self._shards)} shards; make it again")

    @cached_property
    def index(self) -> pd.DataFrame:
        """What is known of every row. Raises ValueError when it is damaged."""
        return pd.read_parquet(verified_index(self.folder, self._index))

    def __len__(self) -> int:
        return len(self.index)

    def batches(self, batch_size: int) -> Iterator[range]:
        """Consecutive row ranges that cover the table."""
        return ranges(len(self), batch_size)

    def pictures(self, rows: Sequence[int] | np.ndarray) -> list[Image.Image]:
        """The given rows as RGB images. Raises ValueError when one of them is damaged."""
        found: dict[int, Image.Image] = {}
        wanted = [int(row) for row in rows]
        for number in sorted({row // self.rows_per_shard for row in wanted}):
            path = self.folder / shard_name(number)
            members = {row for row in wanted if row // self.rows_per_shard == number}
            try:
                with tarfile.open(path) as archive:
                    for row in members:
                        found[row] = _decoded(archive, f"{row:08d}.png")
            except (OSError, KeyError, SyntaxError, ValueError, tarfile.TarError) as error:
                raise ValueError(f"{path} is damaged ({error}); make the table again") from error
        return [found[row] for row in wanted]

    def read(self, rows: Sequence[int] | np.ndarray) -> Tensor:
        """The given rows, uint8 (len(rows), 3, H, W). Raises ValueError when one is damaged or sizes differ."""
        pictures = self.pictures(rows)
        sizes = {picture.size for picture in pictures}
        if len(sizes) > 1:
            raise ValueError(f"{self.folder} holds images of several sizes, {sorted(sizes)[:3]}; bring them to one")
        return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)

    @property
    def handle(self) -> "ImageFolder":
        """The table by its path."""
        return ImageFolder(path=self.folder)


class ImageFolder(Params):
    """A finished table of images by its path, as jobs hand it around."""

    path: Path

    def open(self) -> ImageTable:
        """The table."""
        return ImageTable(self.path)

    def fingerprint(self) -> str:
        """SHA-256 of the description, which holds those of the index and of all shards."""
        return sha256_of(self.path / TABLE_FILE)


class ImageWriter(Shards):
    """Writes a table shard by shard, in any order and from several processes; what is there already is kept."""

    def __init__(self, folder: Path, rows: int, rows_per_shard: int) -> None:
        super().__init__(folder, rows, rows_per_shard, shard_name)

    def write(self, number: int, columns: Mapping[str, Tensor]) -> None:
        """Write one shard: ``image`` (n, 3, H, W) uint8, and numbers (n,) that become columns of the index."""
        numbers = {name: column.tolist() for name, column in columns.items() if name != "image"}
        pictures = [Image.fromarray(image) for image in columns["image"].permute(0, 2, 3, 1).cpu().numpy()]
        self.write_pictures(number, pictures, numbers)

    def write_pictures(
        self, number: int, pictures: Sequence[Image.Image], columns: Mapping[str, Sequence[float]]
    ) -> None:
        """Write one shard of images, whatever their sizes, under a temporary name, sync it and rename it."""
        with complete(self.path(number)) as partial, tarfile.open(partial, "w") as archive:
            for place, (row, picture) in enumerate(zip(self.rows_of(number), pictures, strict=True)):
                buffer = io.BytesIO()
                picture.save(buffer, format="PNG", compress_level=COMPRESSION)
                numbers = {name: values[place] for name, values in columns.items()}
                _add(archive, f"{row:08d}.png", buffer.getvalue())
                _add(archive, f"{row:08d}.json", json.dumps(numbers).encode())

    def finish(self, index: pd.DataFrame) -> ImageTable:
        """Write the index of all rows, with the numbers of the shards, and open the table."""
        self.check_rows(index)
        numbers = [row for number in range(self.shards) for row in self._numbers(number)]
        frame = pd.concat([index.reset_index(drop=True), pd.DataFrame(numbers, index=range(self.rows))], axis=1)
        index_checksum = self.write_index(frame)
        meta = {
            "rows_per_shard": self.rows_per_shard,
            "shards": {path.name: sha256_of(path) for path in self.paths},
            "index": index_checksum,
        }
        write_text(self.folder / TABLE_FILE, json.dumps(meta, indent=0))
        return ImageTable(self.folder)

    def _numbers(self, number: int) -> list[dict[str, float]]:
        with tarfile.open(self.path(number)) as archive:
            return [json.loads(_content(archive, f"{row:08d}.json")) for row in self.rows_of(number)]


def join_tables(tables: Sequence[ImageTable], index: pd.DataFrame, folder: Path) -> ImageTable:
    """The images of several tables as one, with the index of all their rows, shard by shard."""
    size = max(table.rows_per_shard for table in tables)
    owners = [(table, row) for table in tables for row in range(len(table))]
    writer = ImageWriter(folder, len(owners), size)
    for number in range(writer.shards):
        chosen = owners[number * size : (number + 1) * size]
        pictures = [picture for table, rows in _runs(chosen) for picture in table.pictures(rows)]
        writer.write_pictures(number, pictures, {})
    return writer.finish(index)


def shard_name(number: int) -> str:
    """The file of one shard."""
    return f"images-{number:05d}.tar"


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # without time or owner, so that equal images are equal files
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is no file")
    return file.read()


def _decoded(archive: tarfile.TarFile, name: str) -> Image.Image:
    picture = Image.open(io.BytesIO(_content(archive, name)))
    picture.load()
    return picture


def _runs(owners: Sequence[tuple[ImageTable, int]]) -> Iterator[tuple[ImageTable, list[int]]]:
    """Consecutive rows of one table together."""
    for _, run in itertools.groupby(owners, key=lambda owner: id(owner[0])):
        pairs = list(run)
        yield pairs[0][0], [row for _, row in pairs]
