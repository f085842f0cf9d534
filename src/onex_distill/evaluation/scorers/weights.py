"""Files of scorers: where they are, whether they are the right ones, and how to get them."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import hf_hub_download
from pydantic import Field, model_validator

from onex_distill.parameters import Params
from onex_distill.storage.files import complete, sha256_of, write_text

CHECKSUMS = "sha256.json"
MODELSCOPE = "www.modelscope.cn"


@dataclass(frozen=True)
class MissingScorer:
    """A network that cannot be loaded here: its cells stay empty, with the reason."""

    name: str
    reason: str


class File(Params):
    """A file and its SHA-256, or an empty string when that is unknown.

    An unknown one is written beside the file at the first download, and verified from then on. The first digits are
    enough. A file that is published as a pickle is fetched as ``pickle`` and converted.
    """

    name: str
    sha256: str = ""
    pickle: str = ""
    pickle_sha256: str = ""

    def download(self) -> tuple[str, str]:
        """The name of what is fetched, and its SHA-256."""
        return (self.pickle, self.pickle_sha256) if self.pickle else (self.name, self.sha256)


class Source(Params):
    """Files of a local folder, of a model on a hub at a pinned revision, or below an address.

    Raises ValueError for a hub without a revision, and for an address without a SHA-256.
    """

    hub: Literal["local", "huggingface", "modelscope", "url"]
    location: str
    revision: str = ""
    files: tuple[File, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _pinned(self) -> "Source":
        if self.hub in ("huggingface", "modelscope") and not self.revision:
            raise ValueError(
                f"{self.location} of {self.hub} has no revision; pin one, so that its numbers can be repeated"
            )
        for name, digest in (file.download() for file in self.files):
            if self.hub == "url" and not digest:
                raise ValueError(f"{self.location}/{name} has no SHA-256; an address has no revision, so give it")
        return self

    def folder(self, root: Path) -> Path:
        """Where the files are, or would be after a download below ``root``."""
        if self.hub == "local":
            return Path(self.location)
        return root / self.hub / self.location.removeprefix("https://").replace("/", "--") / self.revision


def find(source: Source, root: Path) -> Path | str:
    """The folder that holds all files of a source, verified, or a line that says which is missing and how to get it.

    Raises ValueError for a file whose SHA-256 differs.
    """
    folder = source.folder(root)
    for file in source.files:
        if not (folder / file.name).is_file():
            return _absent(source, file, folder)
    written = _written(folder)
    for file in source.files:
        verify(folder / file.name, file.sha256 or written.get(file.name, ""))
    return folder


def verify(path: Path, expected: str) -> None:
    """Raise ValueError for a file whose SHA-256 does not begin with ``expected``."""
    if expected and not (found := sha256_of(path)).startswith(expected):
        raise ValueError(
            f"{path} has SHA-256 {found}, not {expected}; remove it and fetch it again, or correct the scorer"
        )


def _absent(source: Source, file: File, folder: Path) -> str:
    fetched = file.download()[0]
    if file.pickle and (folder / file.pickle).is_file():
        return f"{folder / file.name} is missing; `kedro run --pipelines=convert_scorers` makes it from {file.pickle}"
    if source.hub == "local":
        return f"{folder / fetched} is missing; put it there or correct the scorer's location"
    return (
        f"{folder / fetched} is missing; `kedro run --pipelines=fetch_scorers` downloads it from {source.location} "
        f"({source.hub}{', revision ' * bool(source.revision)}{source.revision}), or copy it there"
    )


def fingerprint(source: Source, root: Path) -> dict[str, str]:
    """Where a source comes from and the SHA-256 over those of its files."""
    folder = source.folder(root)
    digests = {file.name: sha256_of(folder / file.name) for file in source.files}
    return {
        "location": source.location,
        "revision": source.revision,
        "sha256": hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest(),
    }


def fetch(source: Source, root: Path) -> str:
    """Download the files of a source that are not there and write their SHA-256; what went wrong, or an empty string.

    Nothing half written stays under the final name. Raises ValueError for a file whose SHA-256 differs.
    """
    folder = source.folder(root)
    for file in source.files:
        name, expected = file.download()
        if source.hub == "local" or (folder / file.name).is_file() or (folder / name).is_file():
            continue
        try:
            _download(source, name, folder)
        except Exception as error:  # of the hub, of the disk, or of whichever HTTP library the hub uses
            return (
                f"{name} of {source.location} ({source.hub}) cannot be fetched ({type(error).__name__}); check the "
                f"network and the name, or copy it to {folder / name}"
            )
        verify(folder / name, expected)
        write_digest(folder, name)
    return ""


def write_digest(folder: Path, name: str) -> None:
    """Note the SHA-256 of a file beside it."""
    digests = {**_written(folder), name: sha256_of(folder / name)}
    write_text(folder / CHECKSUMS, json.dumps(digests, indent=0, sort_keys=True))


def _download(source: Source, name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if source.hub == "huggingface":
        hf_hub_download(source.location, name, revision=source.revision, local_dir=folder)
        return
    base = source.location
    if source.hub == "modelscope":
        domain = os.environ.get("MODELSCOPE_DOMAIN", MODELSCOPE)
        base = f"https://{domain}/models/{source.location}/resolve/{source.revision}"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with complete(folder / name) as partial:
        torch.hub.download_url_to_file(f"{base}/{name}", str(partial), progress=False)


def _written(folder: Path) -> dict[str, str]:
    path = folder / CHECKSUMS
    if not path.is_file():
        return {}
    try:
        return {str(name): str(digest) for name, digest in json.loads(path.read_text()).items()}
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged; remove it, so that it is written again") from error
