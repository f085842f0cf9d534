"""The benchmark of waiting policies compares them on an idle and on a busy machine."""

import threads


def test_rows_compare_the_policies_in_every_round(monkeypatch):
    seconds = {"passive": iter([1.0, 2.0, 4.0] * 2), "active": iter([2.0, 2.0, 2.0, 8.0, 8.0, 8.0])}
    monkeypatch.setattr(threads, "measure", lambda policy, steps: next(seconds[policy]))
    idle, busy = threads.compare(rounds=3, steps=1, busy=0)
    assert (idle["passive"], idle["active"], idle["ratio"]) == (2.0, 2.0, 1.0)
    assert (busy["ratio"], busy["lowest"], busy["highest"]) == (4.0, 2.0, 8.0)


def test_a_process_of_its_own_measures_one_policy():
    assert 0 < threads.measure("passive", 1) < 60


def test_load_ends_with_its_block():
    with threads.load(2) as busy:
        assert [process.poll() for process in busy] == [None, None]
    assert all(process.poll() is not None for process in busy)
