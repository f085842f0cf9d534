"""The folder in which training runs keep their checkpoints until a pipeline has finished."""

from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from kedro.io.core import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from onex_distill.datasets.previews import runs_table


class RunsFolderDataset(AbstractDataset[None, Path]):
    """Loads as a path. It always exists, so that nodes can take it as a free input; the engine owns what is inside."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        """The folder, made if it is missing; raises DatasetError when nothing can be written there."""
        try:
            self._filepath.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self._filepath):
                return self._filepath
        except OSError as error:
            raise DatasetError(
                f"{self._filepath} cannot be written ({error.strerror}); make it writable, or move the data with "
                "--params=data=FOLDER"
            ) from error

    def save(self, data: None) -> None:
        """Refused: the engine writes its own checkpoints."""
        raise DatasetError("the runs folder is written by the training loop, not by a node")

    def preview(self) -> TablePreview:
        """The runs that are recorded, the newest first."""
        return runs_table(self._filepath.parents[1])

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}
