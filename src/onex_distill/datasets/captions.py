"""Files of captions in the formats that users have."""

from pathlib import Path
from typing import Any

import pandas as pd
from kedro.io.core import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

FORMATS = (".txt", ".csv", ".parquet", ".jsonl")


class CaptionsDataset(AbstractDataset[pd.DataFrame, pd.DataFrame]):
    """A table with a column ``text``: one caption a line of a .txt, or a row of a .csv, .jsonl or .parquet file."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """Read the file; raises DatasetError with one line for a missing, unreadable or unknown file."""
        path = self._filepath
        if path.suffix not in FORMATS:
            raise DatasetError(f"{path} is in an unknown format; captions are read from {', '.join(FORMATS)}")
        if not path.is_file():
            raise DatasetError(f"the captions file {path} does not exist; write it, or correct its path in the catalog")
        try:
            return self._read(path)
        except UnicodeDecodeError as error:
            raise DatasetError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
        except pd.errors.EmptyDataError as error:
            raise DatasetError(f"{path} is empty; add a column 'text' with captions") from error
        except Exception as error:  # pandas and Arrow raise almost anything for a file of something else
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise DatasetError(f"{path} cannot be read as {path.suffix}: {reason}") from error

    def save(self, data: pd.DataFrame) -> None:
        """Write a parquet file. Other formats are for reading."""
        if self._filepath.suffix != ".parquet":
            raise DatasetError(f"captions are only written as .parquet, not {self._filepath.suffix}")
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        data.to_parquet(self._filepath, index=False)

    def preview(self, nrows: int = 10) -> TablePreview:
        """The first captions."""
        return TablePreview(self.load().head(nrows).to_dict(orient="split"))

    @staticmethod
    def _read(path: Path) -> pd.DataFrame:
        if path.suffix == ".txt":
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            return pd.DataFrame({"text": [line.strip() for line in lines if line.strip()]})
        if path.suffix == ".csv":
            return _read_csv(path)
        if path.suffix == ".jsonl":
            return pd.read_json(path, lines=True, encoding="utf-8-sig", dtype={"id": str, "text": False})
        return pd.read_parquet(path)

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}


def _read_csv(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, encoding="utf-8-sig", dtype={"id": str, "text": str}, keep_default_na=False)
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes surplus fields for row names
        raise ValueError("line 2 has more fields than the header; put captions with commas in double quotes")
    return table
