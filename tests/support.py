"""What several tests share and is no fixture."""

from pathlib import Path

PROJECT = Path(__file__).parents[1]


def newest(data: Path, path: str) -> Path:
    """The newest version of a dataset below a data folder."""
    folder = data / path
    return max(folder.iterdir()) / folder.name
