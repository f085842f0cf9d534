"""What a run shows: few lines, each once, and everything else in its log file."""

import io
import logging
import subprocess
import sys
import warnings

import pytest
from rich.console import Console

from onex_distill import bars, terminal
from onex_distill.bars import Bar, set_rest
from onex_distill.terminal import FOREIGN, ConsoleHandler, duration, own_lines, silence_foreign
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


def test_quick_nodes_have_no_line_and_the_log_file_has_them(shown):
    lines = [line for line in shown[0].splitlines() if line.strip()]
    assert len(lines) == 3
    assert "2 nodes as version" in lines[0]
    assert "evaluation_plan: " in lines[1]
    assert "Done in" in lines[-1]
    nodes = [line for line in shown[1].splitlines() if "[1/2]" in line or "[2/2]" in line]
    assert "prepare_prompts: check the captions" in nodes[0]
    assert nodes[0].endswith("-> prompts")
    assert len(nodes) == 2


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


@pytest.fixture
def screen(monkeypatch):
    """A terminal of 60 columns that is a string."""
    drawn = Console(file=io.StringIO(), force_terminal=True, force_interactive=True, width=60, highlight=False)
    monkeypatch.setattr(terminal, "console", lambda: drawn)
    monkeypatch.setattr(bars, "console", lambda: drawn)
    return drawn


def record(text):
    return logging.LogRecord("onex_distill", logging.INFO, "", 0, text, None, None)


def test_lines_appear_above_a_bar_and_leave_nothing_of_it(screen):
    with Bar("training", 4, "steps") as bar:
        bar.advance({"student": 0.25, "fake score": 0.5, "validation distance": 12.0})
        ConsoleHandler().emit(record("a line"))
        bar.advance()
    text = screen.file.getvalue()
    assert "\x1b[2Ka line" in text  # the bar's line is wiped before it
    assert text.rstrip().endswith("\x1b[2K")  # and at the end


def test_a_bar_says_values_and_the_time_left_for_this_and_in_all(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    bar = Bar("training", 40, "steps", done=10, shown=True)
    set_rest(600)
    try:
        values = {"student": 0.25, "fake score": 0.5, "validation distance": 12.0}
        now[0] = 900.0  # the first piece has prepared everything
        bar.advance(values)
        assert bar.text() == "steps; student 0.25, fake score 0.5, validation distance 12"
        now[0] += 27.0
        for _ in range(9):
            bar.advance(values)
        assert bar.text() == "steps, 60 s left, 11 min in all; student 0.25, fake score 0.5, validation distance 12"
        set_rest(None)
        assert bar.text().startswith("steps, 60 s left; student")
    finally:
        set_rest(None)


def test_without_a_terminal_there_are_lines_at_growing_intervals(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(bars, "console", lambda: Console(file=io.StringIO(), force_terminal=False))
    with (
        caplog.at_level(logging.INFO),
        Bar("training", 1000, "steps") as bar,
        Bar("other", 1000, "steps", shown=False) as other,
    ):
        for second in range(1000):
            now[0] = float(second)
            bar.advance({"student": 0.25})
            other.advance({"student": 0.25})
    assert [line.split()[1] for line in caplog.messages] == ["31/1000", "91/1000", "211/1000", "451/1000", "931/1000"]
    assert caplog.messages[0] == "training 31/1000 steps, 16 min left; student 0.25"


def test_lines_break_between_words_and_tables_are_left_alone(screen):
    name = "fractional_167.cotraining_losses_and_a_long_name"
    text = f"07:00:00 [1/2] sample_stage_one_2: of every block -> {name}, cost\n" + "a  table " * 9
    lines = ConsoleHandler().lines(text)
    assert all(len(line) <= 60 for line in lines[:-1])
    assert " ".join(line.strip() for line in lines[:-1]) == text.splitlines()[0]
    assert all(line.startswith(" " * 9) for line in lines[1:-1])
    assert lines[-1] == "a  table " * 9


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
