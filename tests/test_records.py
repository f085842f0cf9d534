"""Records of runs: what they hold, what is compared, what may be pruned."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from onex_distill.cli import cli
from onex_distill.storage.records import NodeRecord, RunRecord, changes, needed, read_records, write_record
from onex_distill.storage.versions import version_path, versions_of
from support import PROJECT

OLD, NEW, NEWEST = (f"2026-01-0{day}T00.00.00.000Z" for day in (1, 2, 3))


def record(version: str, nodes: dict[str, NodeRecord], parameters: dict[str, object] | None = None) -> RunRecord:
    return RunRecord(
        version=version,
        pipelines=("distill",),
        env="test",
        command_line={"params": {}},
        parameters=parameters or {},
        commit="abc",
        packages={"torch": "2"},
        machine={},
        started="2026-01-01",
        seconds=61.0,
        status="finished",
        nodes=nodes,
    )


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    bootstrap_project(PROJECT)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli, [*arguments, "--env=test", f"--params=data={tmp_path}"])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.output

    return run


def planned(tmp_path: Path, captions: int = 9, **filters: object) -> None:
    """Two cheap nodes of the main job."""
    params = {"data": str(tmp_path), "evaluation_set": {"captions": captions}}
    bootstrap_project(PROJECT)
    with KedroSession.create(PROJECT, env="test", runtime_params=params) as session:
        session.run(pipeline_names=["precompute"], node_names=["prepare_prompts", "plan_evaluation"], **filters)


def test_a_run_says_what_made_its_versions(tmp_path):
    planned(tmp_path)
    ((version, made),) = read_records(tmp_path).items()
    assert (made.pipelines, made.env, made.status) == (("precompute",), "test", "finished")
    assert made.command_line["node_names"] == ["prepare_prompts", "plan_evaluation"]
    assert made.parameters["evaluation_set"]["captions"] == 9
    assert made.parameters["student"]["stage_one"]["seed"] == 12
    assert made.nodes["plan_evaluation"].inputs["prompts"] == version
    assert made.nodes["prepare_prompts"].inputs["captions"] is None
    assert made.outputs() == {"prompts": version, "evaluation_plan": version}
    assert made.packages["torch"]
    assert made.machine["python"]
    assert made.seconds > 0
    assert versions_of(tmp_path / "02_intermediate/prompts.parquet") == [version]


def test_a_failed_run_says_so(tmp_path, monkeypatch):
    from onex_distill.pipelines.precompute import nodes

    monkeypatch.setattr(nodes, "build_prompt_table", lambda captions: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        planned(tmp_path)
    assert read_records(tmp_path) == {}  # nothing was written


def test_missing_outputs_only_does_not_hide_a_changed_parameter(tmp_path):
    planned(tmp_path)
    planned(tmp_path, only_missing_outputs=True)
    with pytest.raises(
        ValueError, match=r"would skip prepare_prompts, but evaluation_set\.captions was 9 and is 10; run"
    ):
        planned(tmp_path, captions=10, only_missing_outputs=True)
    assert len(versions_of(tmp_path / "03_primary/evaluation_plan.parquet")) == 1


def test_runs_are_listed_and_compared(tmp_path, command):
    assert "No run is recorded below" in command("runs")
    for version, seed, fid in ((OLD, 1, 20.0), (NEW, 2, 15.5)):
        made = NodeRecord(inputs={}, outputs={"metrics_table": version}, seconds=1.0)
        write_record(record(version, {"build": made}, {"student": {"seed": seed}, "same": 1}), tmp_path)
        table = version_path(tmp_path / "08_reporting/metrics.csv", version)
        table.parent.mkdir(parents=True)
        table.write_text(f"method,fid,fid_low,fid_high,nfe\nstudent,{fid},{fid - 1},{fid + 1},1.67\n")
    assert f"{OLD}  distill  61 s  finished" in command("runs")
    output = command("compare", OLD, NEW)
    assert "student.seed: 1 -> 2" in output
    assert "same" not in output
    assert "20 [19, 21]" in output
    assert "15.5 [14.5, 16.5]" in output
    assert f"unknown version '2026'; known: {OLD}, {NEW}" in command("compare", OLD, "2026")
    assert f"unknown version {NEW[:-2]!r}; did you mean {NEW!r}?" in command("compare", OLD, NEW[:-2])


def test_pruning_keeps_what_the_newest_is_made_from(tmp_path, command):
    prompts, plan = tmp_path / "02_intermediate/prompts.parquet", tmp_path / "03_primary/evaluation_plan.parquet"
    for path, versions in ((prompts, (OLD, NEW)), (plan, (OLD, NEW, NEWEST))):
        for version in versions:
            version_path(path, version).parent.mkdir(parents=True)
            version_path(path, version).write_bytes(b"x" * 2**20)
    (plan / OLD / "mine.txt").write_text("mine")

    def node(prompts_version, plan_version):
        return NodeRecord(inputs={"prompts": prompts_version}, outputs={"evaluation_plan": plan_version}, seconds=1.0)

    made = {"prepare": NodeRecord(inputs={}, outputs={"prompts": OLD}, seconds=1.0), "plan": node(OLD, OLD)}
    write_record(record(OLD, made), tmp_path)
    write_record(record(NEW, {"prepare": NodeRecord(inputs={}, outputs={"prompts": NEW}, seconds=1.0)}), tmp_path)
    write_record(record(NEWEST, {"plan": node(OLD, NEWEST)}), tmp_path)  # of the older prompts, with --load-versions
    assert "1.0 MiB could be removed; add --yes" in command("prune")
    assert versions_of(plan) == [OLD, NEW, NEWEST]
    assert "1.0 MiB removed" in command("prune", "--yes")
    assert versions_of(prompts) == [OLD, NEW]
    assert versions_of(plan) == [NEW, NEWEST]  # no record says what made NEW, so it stays
    assert (plan / OLD / "mine.txt").read_text() == "mine"


def test_what_is_needed_is_found_through_all_runs():
    first = record(OLD, {"a": NodeRecord(inputs={"raw": None}, outputs={"x": OLD}, seconds=1.0)})
    second = record(NEW, {"b": NodeRecord(inputs={"x": OLD}, outputs={"y": NEW}, seconds=1.0)})
    assert needed({"y": NEW, "z": NEW}, {OLD: first, NEW: second}) == {("y", NEW), ("x", OLD), ("z", NEW)}


def test_changes_name_leaves():
    before, now = {"a": {"b": 1, "c": (1, 2)}, "d": 1}, {"a": {"b": 2, "c": [1, 2]}, "e": 1}
    assert changes(before, now) == {"a.b": (1, 2), "d": (1, None), "e": (None, 1)}


def test_a_file_that_is_no_record_is_named(tmp_path):
    (tmp_path / "runs/x").mkdir(parents=True)
    (tmp_path / "runs/x/run.json").write_text(json.dumps({"version": 1}))
    with pytest.raises(ValueError, match=r"run\.json is no record of a run"):
        read_records(tmp_path)
