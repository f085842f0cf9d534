"""The benchmark of kept memory compares both ways in every round."""

import subprocess

import memory
from onex_distill.process import MALLOPT


def test_rows_compare_both_ways_in_every_round(monkeypatch):
    kept = iter(
        [{"sampling": 1.0, "training": 4.0, "peak_mib": 500.0}, {"sampling": 2.0, "training": 2.0, "peak_mib": 700.0}]
    )
    returned = iter(
        [{"sampling": 2.0, "training": 4.0, "peak_mib": 400.0}, {"sampling": 2.0, "training": 6.0, "peak_mib": 500.0}]
    )
    monkeypatch.setattr(memory, "measure", lambda way, calls: next(kept if way == "kept" else returned))
    sampling, training = memory.compare(rounds=2, calls=1)
    assert [sampling[name] for name in ("kept_ms_per_row", "ratio", "lowest", "highest")] == [1.5, 1.5, 1.0, 2.0]
    assert [training[name] for name in ("ratio", "lowest", "highest")] == [2.0, 1.0, 3.0]
    assert (sampling["kept_peak_mib"], sampling["returned_peak_mib"]) == (600.0, 450.0)


def test_each_way_has_a_process_of_its_own_whatever_the_caller_chose(monkeypatch):
    seen = []

    def run(command, *, env, **_):
        seen.append({name: value for name, value in env.items() if name in MALLOPT})
        return subprocess.CompletedProcess(command, 0, stdout='{"sampling": 1.0}')

    monkeypatch.setattr(memory.subprocess, "run", run)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "7")
    assert [memory.measure(way, 1) for way in ("kept", "returned")] == [{"sampling": 1.0}] * 2
    assert seen == [{name: str(size) for name, (_, size) in MALLOPT.items()}, {}]


def test_work_is_timed_and_its_peak_measured(monkeypatch):
    monkeypatch.setattr(memory, "ROWS", {"sampling": 2, "training": 2})
    found = memory.work(calls=1)
    assert set(found) == {"sampling", "training", "peak_mib"}
    assert all(value > 0 for value in found.values())
