"""Files of captions in the formats that users have."""

import logging
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pandas as pd
from kedro.io.core import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview
from pydantic import PositiveInt, model_validator

from onex_distill.datasets.caption_files import COLUMNS, FORMATS, Row, bad_rows, read_rows, value_of
from onex_distill.datasets.previews import rounded
from onex_distill.parameters import ParameterError, Params
from onex_distill.storage.files import absent
from onex_distill.storage.prompt_table import SPLITS, fault_of

logger = logging.getLogger(__name__)


class CaptionFilters(Params):
    """Which captions are kept: by their length in characters, and by a regular expression found anywhere in them."""

    minimum_length: PositiveInt = 1
    maximum_length: PositiveInt | None = None
    matching: str | None = None

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        try:
            re.compile(self.matching or "")
        except re.error as error:
            raise ValueError(f"matching {self.matching!r} is no regular expression: {error}") from error
        return self

    def keep(self, text: str) -> bool:
        """Whether a caption is kept."""
        longest = len(text) if self.maximum_length is None else self.maximum_length
        return self.minimum_length <= len(text) <= longest and bool(re.search(self.matching or "", text))


class CaptionsDataset(AbstractDataset[pd.DataFrame, pd.DataFrame]):
    """A table with a column ``text``, and ``id`` and ``split`` where the file has them.

    ``filepath`` is a .txt (a caption per line), .csv, .tsv, .jsonl, .json (a list, or COCO's captions) or .parquet
    file, or a folder, of which every .parquet file is read in the order of names. ``column`` names the captions, with
    dots inside nested objects (``Task2.Caption``); without it the first of text, caption, prompt and captions is taken.
    Of several captions in a row, one is chosen by ``seed``. ``split`` puts every row into one split. ``filters``
    (``CaptionFilters``) are applied before ``count``, which keeps as many captions, chosen by ``seed``, in the order of
    the file.
    """

    def __init__(
        self,
        *,
        filepath: str,
        column: str | None = None,
        split: str | None = None,
        filters: dict[str, Any] | None = None,
        count: int | None = None,
        seed: int = 0,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._filepath = Path(filepath)
        self.column, self.split, self.count, self.seed = column, split, count, seed
        self.metadata = metadata
        try:
            self.filters = CaptionFilters.model_validate(filters or {})
        except ParameterError as error:
            raise DatasetError(f"the filters of {filepath} are wrong: {error}") from None
        if split not in (None, *SPLITS):
            raise DatasetError(f"split {split!r} of {filepath} is unknown; it is one of {', '.join(SPLITS)}")
        if count is not None and count < 1:
            raise DatasetError(f"count {count} of {filepath} keeps no caption; give 1 or more, or leave it out")

    def load(self) -> pd.DataFrame:
        """Read the captions; raises DatasetError of one line that names every bad row, up to a handful."""
        rows: list[dict[str, Any]] = []
        wrong: list[tuple[str, str]] = []
        empty = 0
        files = self._files()
        for path in files:
            for row in self._rows(path):
                one = self._caption(row)
                fault = fault_of(one["text"])
                if one["text"] is None and path.suffix in (".json", ".jsonl", ".parquet"):
                    empty += 1
                elif fault:
                    wrong.append((row.place if len(files) == 1 else f"{path.name} {row.place}", fault))
                elif self.filters.keep(one["text"].strip()):
                    rows.append(one | {"text": one["text"].strip()})
        if wrong:
            raise DatasetError(f"{self._filepath}: {bad_rows(wrong)}; remove or correct them")
        if empty:
            logger.warning("%d rows of %s have no caption and are left out.", empty, self._filepath)
        if not rows:
            raise DatasetError(f"{self._filepath} holds no caption{' that its filters keep' if self._filtered else ''}")
        return pd.DataFrame(self._subset(rows)).dropna(axis="columns", how="all")

    def save(self, data: pd.DataFrame) -> None:
        """Write a parquet file. Other formats are for reading."""
        if self._filepath.suffix != ".parquet":
            raise DatasetError(f"captions are only written as .parquet, not {self._filepath.suffix}")
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        data.to_parquet(self._filepath, index=False)

    def preview(self, nrows: int = 10) -> TablePreview:
        """The first captions."""
        return rounded(self.load().head(nrows))

    @property
    def _filtered(self) -> bool:
        return self.filters != CaptionFilters()

    def _files(self) -> list[Path]:
        """The file, or the parquet files of the folder."""
        path = self._filepath
        if path.is_dir():
            files = sorted(path.rglob("*.parquet"))
            if not files:
                raise DatasetError(f"the folder {path} holds no .parquet file; name the captions file itself")
            return files
        if not path.is_file():
            raise DatasetError(f"{absent(path)}; put the captions there, or correct their path in the catalog")
        if path.suffix not in FORMATS:
            raise DatasetError(f"{path} is in an unknown format; captions are read from {', '.join(FORMATS)}")
        return [path]

    def _rows(self, path: Path) -> Iterator[Row]:
        """The rows of one file, with its errors as one line."""
        try:
            yield from read_rows(path, self.column)
        except UnicodeDecodeError as error:
            raise DatasetError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
        except Exception as error:  # the libraries raise almost anything for a file of something else
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise DatasetError(f"{path} cannot be read as {path.suffix}: {reason}") from error

    def _caption(self, row: Row) -> dict[str, Any]:
        """``text`` of a row, and its ``id`` and ``split``; of several texts, one by the seed and the row's place."""
        column = self.column or next((name for name in COLUMNS if name in row.content), None)
        there = column is not None and bool({column, column.partition(".")[0]} & row.content.keys())
        if column is None or not (there or self._optional):
            found = ", ".join(map(repr, row.content)) or "nothing"
            wanted = f"a column {column!r}" if column else f"a column {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}"
            raise DatasetError(f"{self._filepath}: {row.place} lacks {wanted} (found {found}); name it in the catalog")
        text = value_of(row.content, column)
        name = row.content.get("id")
        if isinstance(text, list):
            chosen = random.Random(f"{self.seed} {row.place}").randrange(len(text)) if text else 0  # noqa: S311
            names = row.content.get("ids")
            name = names[chosen] if isinstance(names, list) and names else name
            text = text[chosen] if text else None
        name = str(name) if isinstance(name, int) and not isinstance(name, bool) else name
        return {"id": name, "text": text, "split": self.split or row.content.get("split")}

    @property
    def _optional(self) -> bool:
        """Whether rows may lack the column: those of nested objects, as in files that grew over time."""
        return self._filepath.suffix in (".json", ".jsonl") and self.column is not None

    def _subset(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self.count is None or self.count >= len(rows):
            return rows
        chosen = random.Random(self.seed).sample(range(len(rows)), self.count)  # noqa: S311
        return [rows[number] for number in sorted(chosen)]

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "column": self.column, "count": self.count, "seed": self.seed}
