"""Getting the files of all networks of a configuration, and making safetensors of pickles."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from onex_distill.evaluation.scorers.base import NetworkParams
from onex_distill.evaluation.scorers.states import convert_pickle
from onex_distill.evaluation.scorers.weights import Source, fetch, find, verify, write_digest

logger = logging.getLogger(__name__)

COLUMNS = ["network", "part", "location", "revision", "file", "state", "reason"]


def fetch_files(networks: Sequence[NetworkParams], root: Path) -> pd.DataFrame:
    """Download below ``root`` what the networks name and is not there; a row per file with its state.

    One that cannot be had is a warning and a row with the reason, and does not keep others from being fetched. Raises
    ValueError for a file whose SHA-256 differs.
    """
    reasons = {}
    for name, part, source in _sources(networks):
        reason = fetch(source, root)
        if reason:
            logger.warning("%s lacks its %s: %s", name, part, reason)
        reasons[(name, part)] = reason
    return files_table(networks, root, reasons)


def convert_files(networks: Sequence[NetworkParams], root: Path) -> pd.DataFrame:
    """Make the safetensors that the networks read from fetched pickles; a row per file with its state.

    Nothing inside a pickle is executed, and a file that is there is not made again. Raises ValueError for a pickle
    whose SHA-256 differs or that holds more than tensors.
    """
    for _, _, source in _sources(networks):
        folder = source.folder(root)
        for file in source.files:
            pickle = folder / file.pickle
            if file.pickle and pickle.is_file() and not (folder / file.name).is_file():
                verify(pickle, file.pickle_sha256)
                convert_pickle(pickle, folder / file.name)
                write_digest(folder, file.name)
                logger.info("%s was made from %s", folder / file.name, file.pickle)
    return files_table(networks, root, {})


def files_table(networks: Sequence[NetworkParams], root: Path, reasons: dict[tuple[str, str], str]) -> pd.DataFrame:
    """A row per file: ``present``, ``pickle`` (to be converted) or ``missing`` with the way to get it."""
    rows = []
    for name, part, source in _sources(networks):
        found = find(source, root)
        reason = found if isinstance(found, str) else ""
        for file in source.files:
            folder = source.folder(root)
            pickled = bool(file.pickle) and (folder / file.pickle).is_file()
            state = "present" if (folder / file.name).is_file() else "pickle" if pickled else "missing"
            why = "" if state == "present" else reasons.get((name, part)) or reason
            rows.append([name, part, source.location, source.revision, file.name, state, why])
    return pd.DataFrame(rows, columns=COLUMNS)


def _sources(networks: Sequence[NetworkParams]) -> Iterator[tuple[str, str, Source]]:
    for network in networks:
        for part, source in {**network.sources(), **network.optional()}.items():
            yield network.name, part, source
