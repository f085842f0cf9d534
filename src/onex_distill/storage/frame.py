"""A pandas table as a file that jobs hand around."""

import hashlib
import json
from pathlib import Path

import pandas as pd

from onex_distill.parameters import Params
from onex_distill.storage.files import complete


class FrameFile(Params):
    """A parquet file by its path."""

    path: Path

    def read(self) -> pd.DataFrame:
        """The table."""
        return pd.read_parquet(self.path)

    def fingerprint(self) -> str:
        """SHA-256 of the rows and of the columns' names."""
        frame = self.read()
        names = json.dumps([str(name) for name in frame.columns]).encode()
        return hashlib.sha256(names + pd.util.hash_pandas_object(frame).to_numpy().tobytes()).hexdigest()


def store_frame(frame: pd.DataFrame, path: Path) -> FrameFile:
    """Write a table beside the job that reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with complete(path) as partial:
        frame.to_parquet(partial)
    return FrameFile(path=path)
