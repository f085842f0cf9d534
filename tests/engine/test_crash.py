"""Every job is killed with SIGKILL at random moments, and must end with the bytes of a run that was left alone."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from onex_distill.engine.job import write_job
from onex_distill.storage.tensor_table import TensorTable

KILLS = 20
TRAININGS = ["stage_one", "stage_two", "cotraining", "reader", "autoencoder", "text_encoders", "transformer"]
JOBS = [*TRAININGS, "embedding", "sampling"]
STEPS = 30

pytestmark = [pytest.mark.crash, pytest.mark.slow]


class Driver:
    """A process that runs jobs in forked children."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("crash_driver.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # a forked child must find no thread pool of its parent
        )
        self.errors: list[str] = []
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()
        assert self.process.stdout.readline() == "ready\n"

    def start(self, job_file: Path) -> int:
        self.process.stdin.write(f"{job_file}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def status(self) -> int:
        return int(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    driver = Driver()
    yield driver
    driver.close()


def prepared(jobs, name: str, folder: Path) -> Path:
    """A job file; trainings save after every step, the others have many small batches."""
    many = {"steps": STEPS, "checkpoint_every": 1, "log_every": STEPS} if name in TRAININGS else {"batch_size": 1}
    job = jobs(name, folder, **many)
    folder.mkdir(parents=True)
    write_job(job, job.identity(), folder / "job.json")
    return folder / "job.json"


def contents(result: Path) -> dict[str, bytes]:
    """Every file that a job made; of its tables, every column but the measured seconds."""
    tables = {path.parent for path in result.rglob("table.json")}
    paths = sorted(path for path in result.rglob("*") if path.is_file() and path.parent not in tables)
    found = {str(path.relative_to(result)): path.read_bytes() for path in paths}
    for table in map(TensorTable, sorted(tables)):
        columns = {name: table.column(name) for name in table.names if name != "seconds"}
        found |= {f"{table.folder.name}/{name}": c.view(torch.uint8).numpy().tobytes() for name, c in columns.items()}
    return found


def kill_when(pid: int, due: Callable[[], bool], limit: float) -> None:
    """SIGKILL as soon as ``due``, or after ``limit`` seconds, unless the process is quicker."""
    end = time.monotonic() + limit
    while time.monotonic() < end and not due():
        time.sleep(0.0005)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("name", JOBS)
def test_a_killed_job_ends_with_the_same_bytes(driver, jobs, tmp_path, name):
    began = time.monotonic()
    driver.start(prepared(jobs, name, tmp_path / "whole"))
    assert driver.status() == 0, "".join(driver.errors[-12:])
    duration = time.monotonic() - began
    expected = contents(tmp_path / "whole/result")
    assert expected
    draw = random.Random(name)
    kills = in_saves = runs = 0
    while kills < KILLS:
        folder = tmp_path / f"killed-{runs}"
        job_file, runs, finished = prepared(jobs, name, folder), runs + 1, False
        while not finished:
            pid = driver.start(job_file)
            if kills < KILLS:
                aimed = f".partial-step-{draw.randrange(STEPS):08d}" if kills % 3 == 0 else "none"
                kill_when(pid, (folder / aimed).exists, draw.uniform(0.02, 0.5 * duration))
            status = driver.status()
            assert status in (0, -signal.SIGKILL), "".join(driver.errors[-12:])
            finished = status == 0
            kills += not finished
            in_saves += not finished and any(folder.glob(".partial-step-*"))
        assert contents(folder / "result") == expected
    print(f"\n{name}: survived {kills} kills, {in_saves} of them during a save, in {runs} runs")
