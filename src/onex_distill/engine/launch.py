"""Running a job from inside a node: here when one process will do, else in the ranks of an elastic launch."""

import json
import logging
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.job import Job, execute, is_finished, locked, read_job, result_of, write_job
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.run import STOP_FILE, Identity
from onex_distill.engine.speed import check_speed
from onex_distill.errors import USER_ERRORS, Interrupted, RankError
from onex_distill.storage.files import write_text

logger = logging.getLogger(__name__)

HOPELESS = {kind.__name__: kind for kind in (*USER_ERRORS, Interrupted)}  # that a restart would not mend
SHUTDOWN_TIMEOUT = 600  # seconds that ranks have to save a checkpoint before they are killed
JOB_FILE = "job.json"


def launch(job: Job) -> Path:
    """Do the job, or find it done with the same parameters and inputs; return the folder of what it made.

    Raises the error of the rank that failed first, and Interrupted after a request to stop.
    """
    identity = job.identity()
    if is_finished(job, identity):
        logger.info("%s is finished; taking its result.", job.folder.name)
        return result_of(job)
    check_speed(job.compute)
    with locked(job.folder, "launcher"):
        for leftover in (job.folder / STOP_FILE, *job.folder.glob("rank-*.error")):
            leftover.unlink(missing_ok=True)
        if job.compute.ranks == 1:
            execute(job, identity, Ranks(job.compute))
        else:
            _launch_ranks(job, identity)
    return result_of(job)


def _launch_ranks(job: Job, identity: Identity) -> None:
    path = job.folder / JOB_FILE
    write_job(job, identity, path)
    try:
        with _stop_file_on_signals(job.folder / STOP_FILE):
            run_agent(path)
    finally:
        path.unlink(missing_ok=True)


def run_agent(path: Path) -> None:
    """This machine's elastic agent for a job file. Raises the error of the rank that failed first."""
    job, _ = read_job(path)
    try:
        elastic_launch(_config(job), sys.executable)("-m", "onex_distill.engine.worker", str(path))
    except ChildFailedError as error:
        raise_recorded(job.folder)
        rank, failure = error.get_first_failure()
        logs = f"the logs of all ranks but 0 are below {job.folder / 'logs'}"
        if failure.exitcode < 0:
            remedy = "memory running out is a common cause" if failure.exitcode == -signal.SIGKILL else logs
            raise RankError(
                f"rank {rank} of {job.folder.name} was killed by signal {-failure.exitcode}; {remedy}"
            ) from error
        first = min((record for record in _records(job.folder)), key=lambda record: record["time"], default=None)
        what = f"{first['kind']}: {first['message']}\n{first['traceback']}" if first else "left no message"
        rank = first["rank"] if first else rank
        raise RankError(f"rank {rank} of {job.folder.name} failed with {what}; {logs}") from error
    raise_recorded(job.folder)


def record_error(folder: Path, rank: int, error: BaseException) -> None:
    """Leave a rank's error for the launcher."""
    content = {
        "kind": type(error).__name__,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(error)),
        "rank": rank,
        "time": time.time(),
    }
    write_text(folder / f"rank-{rank}.error", json.dumps(content))


def is_hopeless(folder: Path) -> bool:
    """Whether a rank has failed with an error that no restart would mend."""
    return any(record["kind"] in HOPELESS for record in _records(folder))


def raise_recorded(folder: Path) -> None:
    """Raise the first error that no restart would mend, if there is one."""
    hopeless = [record for record in _records(folder) if record["kind"] in HOPELESS]
    if hopeless:
        first = min(hopeless, key=lambda record: record["time"])
        where = "" if first["rank"] == 0 else f"rank {first['rank']}: "
        raise HOPELESS[first["kind"]](where + first["message"])


def _records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("rank-*.error"))]


def _config(job: Job) -> LaunchConfig:
    compute: ComputeParams = job.compute
    others = dict.fromkeys(range(1, compute.processes), Std.ALL)
    return LaunchConfig(
        min_nodes=compute.machines,
        max_nodes=compute.machines,
        nproc_per_node=compute.processes,
        run_id=job.folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint=compute.rendezvous if compute.machines > 1 else "localhost:0",
        max_restarts=compute.restarts,
        logs_specs=DefaultLogsSpecs(log_dir=str(job.folder / "logs"), redirects=others),
        signals_to_handle="SIGHUP,SIGQUIT",  # SIGTERM and SIGINT ask the ranks to save first
        shutdown_timeout=SHUTDOWN_TIMEOUT,
    )


@contextmanager
def _stop_file_on_signals(stop: Path) -> Iterator[None]:
    """Turn SIGTERM and Ctrl-C into a file that every rank on every machine sees."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        stop.touch()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
