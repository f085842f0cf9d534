"""What is wrong with conf or with a folder on the command line is said in one line, with file and line."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from onex_distill.cli import cli, readable
from onex_distill.cli.run import run
from onex_distill.configuration import check_files, check_folders
from support import PROJECT


@pytest.fixture
def conf(tmp_path) -> Path:
    bootstrap_project(PROJECT)
    return Path(shutil.copytree(PROJECT / "conf", tmp_path / "conf"))


def refusal(conf: Path, env: str = "test", **filters: object) -> str:
    """What a run with this conf is refused with."""
    params = {"data": str(conf.parent / "data")}
    with (
        pytest.raises(Exception, match=r".") as error,
        KedroSession.create(PROJECT, env=env, conf_source=str(conf), runtime_params=params) as session,
    ):
        session.run(pipeline_names=["precompute"], node_names=["plan_evaluation"], **filters)
    assert not (conf.parent / "data").exists()
    message = readable(error.value)
    assert "\n" not in message
    return message


def append(path: Path, text: str) -> int:
    """Add lines to a file; the number of the first."""
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, text]) + "\n")
    return len(lines) + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("evalution_set: {captions: 3}", "unknown parameter 'evalution_set'; did you mean 'evaluation_set'?"),
        ("student_: {stage_one: {seed: 1}}", "unknown parameter 'student_'; did you mean 'student'?"),
        ("nobody: {}", "unknown parameter 'nobody'; known: "),
        ("zero: 0", "unknown parameter 'zero'"),
    ],
)
def test_names_that_no_pipeline_reads(conf, text, message):
    append(conf / "test/parameters_mine.yml" if (conf / "test/parameters_mine.yml").exists() else _new(conf), text)
    refused = refusal(conf)
    assert message in refused
    assert refused.endswith(f"(in {conf}/test/parameters_mine.yml)")


def _new(conf: Path) -> Path:
    path = conf / "test/parameters_mine.yml"
    path.touch()
    return path


def test_a_nested_name_that_no_pipeline_reads(conf):
    append(_new(conf), "student: {stage_noe: {batch_size: 4}}")
    assert "unknown parameter 'student.stage_noe.batch_size'; did you mean 'student.stage_one'?" in refusal(conf)


def test_names_that_are_only_referred_to_may_be_there(conf):
    append(_new(conf), "_shared: {a: 1}")
    assert "prompts is not there yet" in refusal(conf)


@pytest.mark.parametrize("env", ["base", "test", "sd3_medium", "sd35_large"])
def test_every_name_of_every_environment_is_read_by_a_pipeline(conf, env):
    assert refusal(conf, env=env) == "prompts is not there yet; run `kedro run --pipelines=distill` first"


@pytest.mark.parametrize("folder", ["base", "test"])
@pytest.mark.parametrize("file", ["globals.yml", "parameters_mine.yml", "catalog_mine.yml"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine: 1\nmine: 2", "line {next}: the key 'mine' is there already, in line {line}; remove one"),
        ("mine: {a: 1, b: [{c: 1, c: 2}]}", "line {line}: the key 'c' is there already, in line {line}; remove one"),
        ("mine: [1, 2\nb: {", "is no YAML: "),
        ("\tmine: 1", " is no YAML: "),
    ],
)
def test_a_file_that_kedro_would_misread(conf, folder, file, text, message):
    path = conf / folder / file
    path.touch()
    line = append(path, text)
    refused = refusal(conf)
    assert str(path) in refused
    assert message.format(line=line, next=line + 1) in refused


def test_files_of_another_encoding_or_kind(tmp_path):
    (tmp_path / "a.yml").write_bytes(b"# caf\xe9\na: 1\n")
    with pytest.raises(ValueError, match=r"a\.yml is not UTF-8 text \(byte 5\); save it as UTF-8"):
        check_files(tmp_path)
    (tmp_path / "a.yml").write_text("- 1\n- 2\n")
    with pytest.raises(ValueError, match=r"a\.yml is no mapping; write `name: value`"):
        check_files(tmp_path)
    (tmp_path / "a.yml").write_text("# nothing\n")
    check_files(tmp_path)


def test_a_merge_may_be_overridden(tmp_path):
    (tmp_path / "a.yml").write_text("a: &a {x: 1}\nb: {<<: *a, x: 2}\nc: {<<: *a, x: 3}\n")
    check_files(tmp_path)


def test_an_unknown_environment(conf):
    assert refusal(conf, env="tset") == "unknown environment 'tset'; did you mean 'test'?"
    published = "sd3, sd35_large, sd35_large_80gb, sd35_medium, sd3_medium, sd3_medium_24gb"
    known = f"base, choices, choices_plain, local, {published}, test"
    assert f"unknown environment 'prod'; known: {known}" in refusal(conf, env="prod")


def test_a_missing_variable_or_reference(conf):
    (conf / "test/credentials.yml").write_text("mine: {key: '${oc.env:NOT_SET}'}\n")
    append(_new(conf), "evaluation_set: {seed: '${globals:nothing}'}")
    assert "Globals key 'nothing' not found and no default value provided. (in evaluation_set.seed)" in refusal(conf)
    (conf / "test/parameters_mine.yml").unlink()
    assert "\"Environment variable 'NOT_SET' not found\" (in mine.key)" in refusal(conf)


@pytest.mark.parametrize("runner", ["ThreadRunner", "ParallelRunner"])
def test_runners_that_break_models(conf, runner):
    from kedro import runner as runners

    assert f"{runner} cannot run these pipelines" in refusal(conf, runner=getattr(runners, runner)())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("techer_samples", "did you mean 'teacher_samples'?"),  # a factory of the catalog takes it
        ("student.stage_noe", "did you mean 'student.stage_one'?"),  # none does
        ("zzz", "known: "),
    ],
)
def test_mistyped_names_in_load_versions(conf, name, message):
    refused = refusal(conf, load_versions={name: "2026-01-01T00.00.00.000Z"})
    assert refused.startswith(f"unknown dataset in --load-versions {name!r}; {message}")


def test_an_input_that_another_pipeline_makes(conf):
    assert refusal(conf) == "prompts is not there yet; run `kedro run --pipelines=distill` first"


@pytest.mark.parametrize("typed", ["2024_11_05", "0123", "1e3", "on", "null", "a b", "ünï#%", "/x/{y}", "1.0", "a:b"])
def test_a_folder_is_the_text_that_was_typed(typed):
    context = run.make_context("run", [f"--params=data={typed},compute.processes=2,raw={typed}"])
    assert context.params["params"] == {"data": typed, "raw": typed, "compute": {"processes": 2}}


def test_the_home_folder_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    context = run.make_context("run", ["--params=data=~/x,raw= ~"])
    assert context.params["params"] == {"data": "/home/me/x", "raw": "/home/me"}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("data=", "data is empty (an unset variable?); give it a folder"),
        ("raw=  ,data=x", "raw is empty"),
        ("data=/tmp/a*", "data is '/tmp/a*', in which * ? [ ] are wildcards; rename that folder"),
    ],
)
def test_folders_that_cannot_be(monkeypatch, typed, message):
    monkeypatch.chdir(PROJECT)
    bootstrap_project(PROJECT)
    result = CliRunner().invoke(cli, ["run", f"--params={typed}"])
    assert result.exit_code == 1
    assert f"Error: {message}" in result.output


@pytest.mark.parametrize("value", [20241105, 1000.0, True, None])
def test_a_folder_that_yaml_made_a_number_of(value):
    with pytest.raises(ValueError, match=r"data is a folder, but .* is no text; put it in quotes"):
        check_folders({"data": value})
