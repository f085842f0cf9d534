"""What a run shows: few lines, each once, and everything else in its log file."""

import io
import logging
import subprocess
import sys
import warnings

import pytest
from tqdm import tqdm

from onex_distill.terminal import FOREIGN, AboveBars, duration, own_lines, silence_foreign
from support import PROJECT


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A short run through the command, in a narrow terminal without colour and with an ASCII locale."""
    data = tmp_path_factory.mktemp("shown") / "data \u00e9"
    command = [
        sys.executable,
        "-m",
        "onex_distill",
        "run",
        "--env=test",
        "--pipelines=precompute",
        f"--params=data={data}",
    ]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), "LC_ALL": "C", "TERM": "dumb", "COLUMNS": "40"}
    result = subprocess.run(
        [*command, "--nodes=prepare_prompts,plan_evaluation"], cwd=PROJECT, env=env, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stderr, next(data.glob("runs/*/log.txt")).read_text(encoding="utf-8")


def test_a_node_is_one_line_with_what_it_makes(shown):
    lines = [line for line in shown[0].splitlines() if line.strip()]
    nodes = [line for line in lines if "[1/2]" in line or "[2/2]" in line]
    assert len(nodes) == 2
    assert "prepare_prompts: Check the captions" in nodes[0]
    assert nodes[0].endswith("-> prompts")
    assert "Done in" in lines[-1]
    assert len(lines) == 4


def test_the_log_file_has_the_lines_that_the_terminal_has_not(shown):
    assert "Saving data to" in shown[1]
    assert "Saving data to" not in shown[0]
    assert "Done in" in shown[1]


def test_warnings_that_nobody_can_act_on_are_not_shown(shown):
    assert "Warning" not in shown[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silence_foreign()
        warnings.warn(f"\n{FOREIGN[0]}() is deprecated", UserWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="of ours"):
            warnings.warn("of ours", UserWarning, stacklevel=1)


def test_lines_appear_above_a_bar():
    stream = io.StringIO()
    with tqdm(total=2, file=stream, ncols=30) as bar:
        bar.update()
        AboveBars(stream).write("a line\n")
        bar.update()
    assert "\ra line\n" in stream.getvalue() or stream.getvalue().count("a line\n") == 1


@pytest.mark.parametrize(
    ("name", "level", "expected"),
    [
        ("onex_distill.engine", logging.INFO, True),
        ("onex_distill.engine", logging.DEBUG, False),
        ("kedro.runner", logging.ERROR, False),
        ("root", logging.WARNING, True),
    ],
)
def test_which_lines_the_terminal_shows(name, level, expected):
    assert own_lines(logging.LogRecord(name, level, "", 0, "text", None, None)) is expected


@pytest.mark.parametrize(("seconds", "text"), [(1.4, "1 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")])
def test_times_are_said_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_threads_wait_passively_before_torch_is_there_unless_the_user_chose():
    code = "import os, sys, onex_distill.settings; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    for chosen, expected in (({}, "passive False"), ({"OMP_WAIT_POLICY": "active"}, "active False")):
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **chosen}
        result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert result.stdout.strip() == expected
