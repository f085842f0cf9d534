"""The lines of a run: which nodes have one, what is left, and what the end says."""

import json
import logging

import pandas as pd
import pytest
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline
from kedro_datasets.json import JSONDataset

from onex_distill.evaluation.report.summary import WIDTH, summary
from onex_distill.hooks import progress
from onex_distill.hooks.progress import TYPICAL, ProgressHook, results
from onex_distill.hooks.registered import all_pipelines
from support import PROJECT


def work(x):
    """Draw things; with care."""
    return x


def node(name, output):
    return Node(work, "x", output, name=name)


@pytest.fixture
def hook(tmp_path, monkeypatch, caplog):
    """A hook that knows how long three of its nodes take, and a clock that is set by hand."""
    caplog.set_level(logging.INFO)
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    made = ProgressHook()
    made._data = tmp_path
    made.before_pipeline_run({"env": "test", "run_id": "v"}, Pipeline([]), None)
    made._expected = {"a": 0.1, "b": 0.1, "c": 0.1, "d": 60.0, "e": 0.1}
    made._waiting, made._total = list("abcde"), 5
    caplog.clear()
    yield made, now
    made._end()


def run(hook, now, name, seconds):
    hook.before_node_run(node(name, f"{name}_out"))
    now[0] += seconds
    hook.after_node_run(node(name, f"{name}_out"))


def test_quick_nodes_share_a_line_and_a_long_one_has_its_own(hook, caplog):
    made, now = hook
    for name in "abc":
        run(made, now, name, 0.1)
    run(made, now, "d", 60.0)
    assert caplog.messages == [
        "[1-3/5] 3 quick nodes, a to c",
        "[4/5] d: draw things -> d_out (about 60 s, 60 s left in all)",
    ]


def test_what_is_left_follows_the_pace_of_this_run(hook):
    made, now = hook
    run(made, now, "d", 150.0)  # 60 foreseen: (150 + 30) / (60 + 30) = 2
    assert made._left(["a", "d"]) == pytest.approx(2 * 60.1)
    assert made._left(["a", "unknown"]) is None


def test_a_node_of_unknown_time_gets_its_line_while_it_runs(hook, caplog, monkeypatch):
    made, _ = hook
    monkeypatch.setattr(progress, "QUICK", 0.01)
    made._expected = {}
    made.before_node_run(node("a", "a_out"))
    made._running["a"][2].join()
    assert caplog.messages == ["[1/5] a: draw things -> a_out"]


def test_a_node_that_fails_at_once_is_named(hook, caplog):
    made, _ = hook
    made.before_node_run(node("a", "a_out"))
    made.on_node_error(node("a", "a_out"))
    made.on_pipeline_error()
    assert caplog.messages[0].startswith("[1/5] a: ")
    assert not made._running["a"][2].is_alive() or made._running["a"][2].finished.is_set()


def test_typical_times_are_of_the_nodes_of_the_main_job_and_make_few_lines():
    bootstrap_project(PROJECT)
    typical, names = json.loads(TYPICAL.read_text()), [node.name for node in all_pipelines()["distill"].nodes]
    assert set(typical) == set(names)
    long = sum(typical[name] >= progress.QUICK for name in names)
    assert 2 * long + 1 <= 60  # a line each and at most one group between two of them


def test_the_summary_has_intervals_and_fits_a_line():
    metrics = pd.DataFrame(
        {
            "method": ["teacher_28x2", "fractional_1.67"],
            "nfe": [56.0, 5 / 3],
            "fid": [float("nan"), 175.62],
            "fid_low": [float("nan"), 150.0],
            "fid_high": [float("nan"), 200.0],
            "alignment": [0.998, 0.961],
            "alignment_low": [0.99, 0.95],
            "alignment_high": [1.0, 0.97],
            "hps": [float("nan")] * 2,
            "diversity": [47.6, 53.8],
            "recall": [1.0, 0.98],
        }
    )
    lines = summary(metrics).splitlines()
    assert "teacher_28x2" in lines[0]
    assert lines[1].split("  ")[-1].strip() == "Recall ↑"
    assert "175.62 [150.00, 200.00]" in lines[3]
    assert "0.961 [0.950, 0.970]" in lines[3]
    assert max(map(len, lines[1:])) <= WIDTH


def test_no_zero_has_a_minus():
    assert "-0" not in summary(pd.DataFrame({"method": ["a"], "nfe": [4.0], "fid": [-4e-13]}))


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (["report", "losses"], ["report"]),
        (["losses"], ["losses"]),
        (["in memory"], []),
        ([f"file {number}" for number in range(9)], [f"file {number}" for number in range(5)]),
    ],
)
def test_a_run_ends_with_where_to_look(tmp_path, made, shown):
    files = {name: JSONDataset(filepath=str(tmp_path / f"{name}.json")) for name in made if name != "in memory"}
    catalog = DataCatalog({"in memory": MemoryDataset(), **files})
    found = results(Pipeline([node(name.replace(" ", "_"), name) for name in made]), catalog)
    assert {name: str(path) for name, path in found.items()} == {name: str(tmp_path / f"{name}.json") for name in shown}
