"""Jobs: what a training, precompute or sampling node hands to its ranks.

A job is a frozen model of paths and parameters, so that it can be written as JSON, read by every rank of every machine,
and told apart from a job with other parameters or other inputs.
"""

import json
import logging
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from filelock import FileLock, Timeout
from pydantic import BaseModel

from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.run import Identity, Run
from onex_distill.engine.speed import attention
from onex_distill.parameters import Params
from onex_distill.storage.files import remove_made, replace_folder, write_text

logger = logging.getLogger(__name__)

PACKAGE = __name__.partition(".")[0]
IDENTITY_FILE = "identity.json"
LOCK_TIMEOUT = 5.0  # seconds; a rank that the agent has just killed may hold the lock a moment longer


@runtime_checkable
class Fingerprinted(Protocol):
    """An input on disk that knows a hash of its contents."""

    def fingerprint(self) -> str:
        """SHA-256 of what a job reads."""


class Job(Params):
    """The base of all jobs; subclasses add their inputs (``Fingerprinted``), ``params`` and ``run``."""

    folder: Path
    compute: ComputeParams

    @abstractmethod
    def run(self, run: Run) -> None:
        """Do the work on one rank; rank 0 writes what is made into ``run.result``."""

    def identity(self) -> Identity:
        """Parameters and input hashes by dotted name; where the job runs is no part of it."""
        identity: Identity = {"job": type(self).__name__}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name in ("folder", "compute"):
                continue
            if isinstance(value, Fingerprinted):
                identity[f"input.{name}"] = value.fingerprint()
            else:
                identity |= _leaves(value.model_dump(mode="json") if isinstance(value, BaseModel) else value, name)
        return identity


def result_of(job: Job) -> Path:
    """The folder of what a finished job made."""
    return job.folder / "result"


def is_finished(job: Job, identity: Identity) -> bool:
    """Whether the job has been done with these parameters and inputs."""
    record = result_of(job) / IDENTITY_FILE
    return record.is_file() and json.loads(record.read_text()) == identity


def execute(job: Job, identity: Identity, ranks: Ranks) -> None:
    """Run the job on this rank. Raises ValueError when another process runs it, or began it with other settings."""
    run = Run(job.folder, identity, ranks)
    with locked(job.folder, "rank-0") if ranks.is_first else nullcontext():
        if ranks.is_first:
            _prepare(run)
        ranks.wait()
        with attention(job.compute.attention):  # the backward pass, which may repeat a forward, needs it too
            job.run(run)
        ranks.wait()
        if ranks.is_first:
            replace_folder(run.result, result_of(job))


def write_job(job: Job, identity: Identity, path: Path) -> None:
    """Write a job for ``read_job``; complete or not at all."""
    name = f"{type(job).__module__}:{type(job).__qualname__}"
    write_text(path, json.dumps({"class": name, "job": job.model_dump(mode="json"), "identity": identity}))


def read_job(path: Path) -> tuple[Job, Identity]:
    """The job and its identity. Raises ValueError when the file names anything but a job of this package."""
    content = json.loads(path.read_text())
    module, _, name = content["class"].partition(":")
    job_class = getattr(import_module(module), name, None) if module.split(".")[0] == PACKAGE else None
    if not (isinstance(job_class, type) and issubclass(job_class, Job)):
        raise ValueError(f"{path} names {content['class']!r}, which is no job of {PACKAGE}; delete it")
    return job_class.model_validate(content["job"]), content["identity"]


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold a lock of a run; the kernel frees it with the process. Raises ValueError when another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / f"{name}.owner"
    lock = FileLock(folder / f"{name}.lock", timeout=LOCK_TIMEOUT)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"{folder} is being run by process {owner.read_text()}; wait for it, or give this run a folder of its own "
            "with --params=data=FOLDER"
        ) from error
    with lock:
        write_text(owner, str(os.getpid()))
        yield
    lock.release()


def _prepare(run: Run) -> None:
    """Clear what killed runs left behind, and the partial result of other settings."""
    for leftover in (*run.folder.glob(".partial-step-*"), *run.folder.glob(".removed-*")):
        remove_made(leftover)
    record = run.result / IDENTITY_FILE
    if record.is_file() and json.loads(record.read_text()) != run.identity:
        logger.warning("%s has other settings now; starting it afresh.", run.folder.name)
        remove_made(run.result)
    run.result.mkdir(parents=True, exist_ok=True)
    write_text(record, json.dumps(run.identity))


def _leaves(value: Any, prefix: str) -> Identity:
    """Leaves of nested mappings and sequences by dotted name."""
    if isinstance(value, Mapping):
        return {k: v for key, item in value.items() for k, v in _leaves(item, f"{prefix}.{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, item in enumerate(value) for k, v in _leaves(item, f"{prefix}.{i}").items()}
    return {prefix: str(value) if isinstance(value, Path) else value}
