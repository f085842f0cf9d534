"""Ranks started from inside a node: restarts, errors, stops, locks, and a second machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from onex_distill.engine import launch as launching
from onex_distill.engine.job import read_job, write_job
from onex_distill.engine.launch import launch
from onex_distill.errors import RankError
from onex_distill.storage.frame import store_frame
from onex_distill.storage.model_folder import ModelFolder

LAUNCH = "import sys; from pathlib import Path; from onex_distill.engine.job import read_job; "
LAUNCH += "from onex_distill.engine.launch import launch; launch(read_job(Path(sys.argv[1]))[0])"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def in_background(job, folder: Path) -> subprocess.Popen:
    """The job in a process of its own, as a node would run it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_job(job, job.identity(), folder / "asked.json")
    with errors_of(folder).open("w") as errors:  # a pipe that nobody reads would fill up and stop the job
        return subprocess.Popen([sys.executable, "-c", LAUNCH, str(folder / "asked.json")], stderr=errors)


def errors_of(folder: Path) -> Path:
    return folder / "stderr.txt"


def wait_for(condition, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def workers(process: subprocess.Popen) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "onex_distill.engine.worker" in child.cmdline()]


def losses(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "result/losses.parquet")


@pytest.fixture
def long(jobs):
    """A stage-one job with a checkpoint after every step."""

    def make(folder: Path, steps: int = 40, **changes):
        return jobs("stage_one", folder, steps=steps, checkpoint_every=1, log_every=steps, **changes)

    return make


@pytest.mark.crash
@pytest.mark.slow
def test_a_killed_rank_is_restarted_from_the_last_checkpoint(long, tmp_path):
    compute = {"processes": 2, "sharding": "ddp", "restarts": 1}
    launch(long(tmp_path / "whole", **compute))
    process = in_background(long(tmp_path / "run", **compute), tmp_path / "run")
    wait_for(lambda: any((tmp_path / "run").glob("step-0000000[5-9]")))
    victim = workers(process)[1]
    assert (tmp_path / "run/result").exists() is False
    victim.kill()
    assert process.wait(120) == 0, errors_of(tmp_path / "run").read_text()
    pd.testing.assert_frame_equal(losses(tmp_path / "run"), losses(tmp_path / "whole"), check_exact=True)
    before, after = (
        ModelFolder(path=tmp_path / n / "result/student", class_name="x").fingerprint() for n in ("whole", "run")
    )
    assert before == after


@pytest.mark.crash
@pytest.mark.slow
def test_a_rank_that_dies_too_often_ends_the_node_with_its_error(long, tmp_path):
    process = in_background(long(tmp_path, processes=2, sharding="ddp"), tmp_path)
    wait_for(lambda: any(tmp_path.glob("step-*")))
    workers(process)[0].kill()
    assert process.wait(120) != 0
    last = errors_of(tmp_path).read_text().strip().splitlines()[-1]
    assert "RankError: rank 0 of" in last
    assert "was killed by signal 9; memory running out is a common cause" in last


def test_an_error_of_any_rank_is_the_nodes_error(jobs, tmp_path):
    job = jobs("stage_one", tmp_path / "run", batch_size=1, processes=2, sharding="ddp", restarts=1)
    with pytest.raises(ValueError, match=r"a batch of 1 cannot be split over 2 ranks; raise batch_size"):
        launch(job)


@pytest.mark.slow
def test_an_unforeseen_error_of_a_rank_comes_with_its_traceback(jobs, tmp_path):
    job = jobs("sampling", tmp_path / "run", batch_size=1, processes=2, sharding="ddp")
    plan = store_frame(job.plan.read().drop(columns="noise_seed"), tmp_path / "plan.parquet")
    message = r"rank [01] of run failed with KeyError: 'noise_seed'\nTraceback(.*\n)*.* in sample"
    with pytest.raises(RankError, match=message):
        launch(job.model_copy(update={"plan": plan}))


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_saves_and_a_second_run_goes_on(long, tmp_path, number, processes):
    compute = {"processes": processes, "sharding": "ddp", "steps": 200}  # on a busy machine the signal may come late
    launch(long(tmp_path / "whole", **compute))
    process = in_background(long(tmp_path / "run", **compute), tmp_path / "run")
    wait_for(lambda: any((tmp_path / "run").glob("step-0000000[3-9]")))
    os.kill(process.pid, number)
    assert process.wait(120) != 0
    assert "Interrupted: run was stopped and saved after step" in errors_of(tmp_path / "run").read_text()
    assert not (tmp_path / "run/result").exists()
    launch(long(tmp_path / "run", **compute))
    pd.testing.assert_frame_equal(losses(tmp_path / "run"), losses(tmp_path / "whole"), check_exact=True)


@pytest.mark.crash
@pytest.mark.slow
def test_ranks_save_and_leave_when_their_launcher_is_killed(long, tmp_path):
    process = in_background(long(tmp_path, steps=4000, processes=2, sharding="ddp"), tmp_path)
    wait_for(lambda: any(tmp_path.glob("step-*")))
    ranks = workers(process)
    process.kill()
    psutil.wait_procs(ranks, timeout=60)
    assert not any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in ranks)


def test_a_second_run_of_the_same_experiment_is_refused(long, tmp_path, monkeypatch):
    monkeypatch.setattr("onex_distill.engine.job.LOCK_TIMEOUT", 0.1)
    process = in_background(long(tmp_path, steps=4000), tmp_path)
    wait_for(lambda: any(tmp_path.glob("step-*")))
    with pytest.raises(ValueError, match=rf"is being run by process {process.pid}; wait for it"):
        launch(long(tmp_path, steps=4000))
    process.terminate()
    process.wait(60)
    with pytest.raises(ValueError, match=r"params\.loop\.steps was 4000 and is 40; restore"):
        launch(long(tmp_path))


@pytest.mark.crash
@pytest.mark.slow
def test_two_machines_meet_at_the_rendezvous(jobs, tmp_path):
    settings = {"machines": 2, "processes": 1, "sharding": "ddp", "rendezvous": f"localhost:{free_port()}"}
    jobs_of_both = [jobs(name, tmp_path / "runs" / name, **settings) for name in ("stage_one", "sampling")]
    joiner = subprocess.Popen([sys.executable, "-m", "onex_distill.engine.join", str(tmp_path / "runs")])
    try:
        for job in jobs_of_both:
            launch(job)
    finally:
        joiner.terminate()
        joiner.wait(60)
    launch(jobs("stage_one", tmp_path / "alone"))
    pd.testing.assert_frame_equal(losses(tmp_path / "runs/stage_one"), losses(tmp_path / "alone"), rtol=1e-4, atol=1e-4)
    assert len(list((tmp_path / "runs/sampling/result/samples").glob("part-*"))) == 3


def test_a_finished_job_is_not_done_again(jobs, tmp_path, monkeypatch):
    launch(jobs("stage_one", tmp_path))
    monkeypatch.setattr(launching, "execute", None)
    launch(jobs("stage_one", tmp_path))


def test_a_job_file_of_another_package_is_refused(jobs, tmp_path):
    job = jobs("stage_one", tmp_path)
    write_job(job, job.identity(), tmp_path / "job.json")
    assert read_job(tmp_path / "job.json") == (job, job.identity())
    content = json.loads((tmp_path / "job.json").read_text())
    for name in ("os:system", "onex_distill.engine.ranks:Ranks", "onex_distill.engine.job:nothing"):
        (tmp_path / "job.json").write_text(json.dumps(content | {"class": name}))
        with pytest.raises(ValueError, match="which is no job of onex_distill"):
            read_job(tmp_path / "job.json")
