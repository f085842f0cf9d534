"""What made each version: a file ``runs/<version>/run.json`` below the data folder for every run."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onex_distill.parameters import Params
from onex_distill.storage.files import write_text

RECORDS = "runs"
FILE = "run.json"
Versions = dict[str, str | None]  # of datasets; None for one without versions


class NodeRecord(Params):
    """The versions that one node has read and written, and its time."""

    inputs: Versions
    outputs: Versions
    seconds: float


class RunRecord(Params):
    """One run. ``parameters`` are all that the configuration and the command line gave, ``seconds`` its time so far."""

    version: str
    pipelines: tuple[str, ...]
    env: str
    command_line: dict[str, Any]
    parameters: dict[str, Any]
    commit: str
    packages: dict[str, str]
    machine: dict[str, str]
    started: str
    seconds: float
    status: str
    nodes: dict[str, NodeRecord]

    def outputs(self) -> Versions:
        """The versions of everything that the run has written."""
        return {name: version for node in self.nodes.values() for name, version in node.outputs.items()}


def write_record(record: RunRecord, data: Path) -> None:
    """Write or renew the record of a run; complete or not at all."""
    path = data / RECORDS / record.version / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record.model_dump(mode="json"), indent=1))


def read_records(data: Path) -> dict[str, RunRecord]:
    """Version to record, the oldest first. Raises ValueError for a file that is none."""
    records = {}
    for path in sorted((data / RECORDS).glob(f"*/{FILE}")):
        try:
            record = RunRecord.model_validate_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is no record of a run ({str(error).splitlines()[0]}); move it away") from error
        records[record.version] = record
    return records


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted names of the leaves that differ, with both values; None where there is none."""
    old, new = dict(leaves(before)), dict(leaves(now))
    names = sorted({*old, *new})
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of nested mappings; sequences are values."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def needed(newest: Mapping[str, str], records: Mapping[str, RunRecord]) -> set[tuple[str, str]]:
    """The newest version of every dataset, and all that these were made from, as far as records tell."""
    found: set[tuple[str, str]] = set()
    waiting = list(newest.items())
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found.add(one)
        name, version = one
        if version in records:
            makers = [node for node in records[version].nodes.values() if node.outputs.get(name) == version]
            waiting += [(source, v) for node in makers for source, v in node.inputs.items() if v is not None]
    return found
