"""Files of scorers: where they are, whether they are the right ones, and how to get them."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import hf_hub_download
from pydantic import model_validator

from onex_distill.parameters import Params
from onex_distill.storage.files import complete, write_text

CHECKSUMS = "sha256.json"
MODELSCOPE = "www.modelscope.cn"


@dataclass(frozen=True)
class MissingScorer:
    """A network that cannot be loaded here: its cells stay empty, with the reason."""

    name: str
    reason: str


class Source(Params):
    """Files of a local folder, or of a model on a hub at a pinned revision.

    ``files`` maps the name of each file to its SHA-256, or to an empty string when that is unknown: then the value of
    the first download is written beside the file and verified from then on. Raises ValueError for a hub without a
    revision.
    """

    hub: Literal["local", "huggingface", "modelscope"]
    location: str
    revision: str = ""
    files: dict[str, str]

    @model_validator(mode="after")
    def _pinned(self) -> "Source":
        if self.hub != "local" and not self.revision:
            raise ValueError(
                f"{self.location} of {self.hub} has no revision; pin one, so that its numbers can be repeated"
            )
        return self

    def folder(self, root: Path) -> Path:
        """Where the files are, or would be after a download below ``root``."""
        if self.hub == "local":
            return Path(self.location)
        return root / self.hub / self.location.replace("/", "--") / self.revision


def find(source: Source, root: Path) -> Path | str:
    """The folder that holds all files of a source, verified, or a line that says which is missing and how to get it.

    Raises ValueError for a file whose SHA-256 differs.
    """
    folder = source.folder(root)
    absent = [name for name in source.files if not (folder / name).is_file()]
    if absent and source.hub == "local":
        return f"{folder / absent[0]} is missing; put it there or correct the scorer's location"
    if absent:
        return (
            f"{folder / absent[0]} is missing; `kedro run --pipeline=fetch_scorers` downloads it from "
            f"{source.location} ({source.hub}, revision {source.revision}), or copy it there"
        )
    written = _written(folder)
    for name, expected in source.files.items():
        expected = expected or written.get(name, "")
        if expected and (found := sha256(folder / name)) != expected:
            raise ValueError(
                f"{folder / name} has SHA-256 {found}, not {expected}; remove it and fetch it again, "
                "or correct the scorer"
            )
    return folder


def fingerprint(source: Source, root: Path) -> dict[str, str]:
    """Where a source comes from and the SHA-256 over those of its files."""
    folder = source.folder(root)
    digests = {name: sha256(folder / name) for name in source.files}
    return {
        "location": source.location,
        "revision": source.revision,
        "sha256": hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest(),
    }


def fetch(source: Source, root: Path) -> Path | str:
    """Download the files of a source that are not there, write their SHA-256, and give what ``find`` gives.

    A download that fails is answered with one line; nothing half written stays under the final name.
    """
    folder = source.folder(root)
    for name in source.files:
        if (folder / name).is_file() or source.hub == "local":
            continue
        try:
            _download(source, name, folder)
        except Exception as error:  # of the hub, of the disk, or of whichever HTTP library the hub uses
            return (
                f"{name} of {source.location} ({source.hub}, revision {source.revision}) cannot be fetched "
                f"({type(error).__name__}); check the network and the name, or copy it to {folder / name}"
            )
        digests = {**_written(folder), name: sha256(folder / name)}
        write_text(folder / CHECKSUMS, json.dumps(digests, indent=0, sort_keys=True))
    return find(source, root)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(source: Source, name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if source.hub == "huggingface":
        hf_hub_download(source.location, name, revision=source.revision, local_dir=folder)
        return
    domain = os.environ.get("MODELSCOPE_DOMAIN", MODELSCOPE)
    url = f"https://{domain}/models/{source.location}/resolve/{source.revision}/{name}"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with complete(folder / name) as partial:
        torch.hub.download_url_to_file(url, str(partial), progress=False)


def _written(folder: Path) -> dict[str, str]:
    path = folder / CHECKSUMS
    if not path.is_file():
        return {}
    try:
        return {str(name): str(digest) for name, digest in json.loads(path.read_text()).items()}
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged; remove it, so that it is written again") from error
