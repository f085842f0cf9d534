"""The benchmark of threads' waiting compares ways on an idle and on a busy machine."""

import os

import pytest

import threads
from onex_distill import process


def test_rows_compare_the_ways_in_every_round(monkeypatch):
    idle, busy = [1.0, 2.0, 4.0], [2.0, 2.0, 2.0]
    seconds = {way: iter(idle + busy) for way in threads.WAYS} | {"one": iter([2.0, 2.0, 2.0, 8.0, 4.0, 16.0])}
    monkeypatch.setattr(threads, "measure", lambda way, steps: next(seconds[way]))
    rows = {(row["machine"], row["way"]): row for row in threads.compare(rounds=3, steps=1, busy=0)}
    assert (rows["idle", "brief"]["seconds"], rows["idle", "one"]["seconds"]) == (2.0, 2.0)
    assert [rows["idle", "one"][name] for name in ("ratio", "lowest", "highest")] == [1.0, 0.5, 2.0]
    assert [rows["busy", "one"][name] for name in ("ratio", "lowest", "highest")] == [4.0, 2.0, 8.0]


def test_a_step_takes_time():
    assert 0 < threads.step_seconds(1) < 60


@pytest.mark.slow
def test_a_process_of_its_own_measures_one_way():
    assert 0 < threads.measure("brief", 1) < 60


def test_the_default_is_what_the_benchmark_calls_brief(monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    process.share_cores()
    assert {name: os.environ[name] for name in threads.WAYS["brief"]} == threads.WAYS["brief"]


def test_load_ends_with_its_block():
    with threads.load(2) as busy:
        assert [process.poll() for process in busy] == [None, None]
    assert all(process.poll() is not None for process in busy)
