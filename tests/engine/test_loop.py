import math
import os
import shutil
import signal
import time

import pandas as pd
import pytest
import torch
from torch import nn

from onex_distill.engine import loop as loop_module
from onex_distill.engine.loop import train
from onex_distill.engine.optimisation import Stepper
from onex_distill.engine.randomness import generator
from onex_distill.engine.run import STOP_FILE, Run
from onex_distill.errors import Interrupted


class Regression:
    """A small training whose every step depends on all steps before it."""

    def __init__(self, optimizer, ranks) -> None:
        torch.manual_seed(0)
        self.network = nn.Linear(4, 1)
        self.stepper = Stepper(self.network.named_parameters(), optimizer, total_steps=4, ranks=ranks)
        self.states = {"network": self.network, "stepper": self.stepper}
        self.calls: list[int] = []

    def update(self, step: int) -> dict[str, float]:
        self.calls.append(step)
        batch = torch.randn(8, 4, generator=generator(0, step, "batch"))
        loss = self.network(batch).square().mean()
        return {"loss": float(loss.detach()), "grad_norm": self.stepper.step(loss)}


@pytest.fixture
def regression(optimizer, ranks):
    return lambda: Regression(optimizer, ranks)


@pytest.fixture
def whole(run, ranks, regression, loop):
    """The same training, left alone."""
    training = regression()
    history = train(training.update, training.states, loop, Run(run.folder.parent / "whole", {}, ranks), str)
    return training.network, history


def test_resuming_equals_running_through(run, regression, loop, whole, interrupt, assert_same_run):
    first, second = regression(), regression()
    with interrupt(loop_module, 3):
        loop_module.train(first.update, first.states, loop, run, str)
    history = train(second.update, second.states, loop, run, str)
    assert (first.calls, second.calls) == ([0, 1, 2], [2, 3])
    assert_same_run(whole, (second.network, history))


def test_a_finished_run_does_not_train_again(run, regression, loop, assert_same_run):
    first, second = regression(), regression()
    history = train(first.update, first.states, loop, run, str)
    again = train(second.update, second.states, loop, run, str)
    assert second.calls == []
    assert_same_run((first.network, history), (second.network, again))


def test_the_last_step_is_saved_whatever_the_interval(run, regression, loop):
    training = regression()
    train(training.update, training.states, loop.model_copy(update={"checkpoint_every": 3}), run, str)
    assert sorted(path.name for path in run.folder.glob("step-*")) == ["step-00000003", "step-00000004"]


def test_another_runs_folder_is_refused_before_training(run, ranks, regression, loop):
    training, other = regression(), regression()
    train(training.update, training.states, loop, run, str)
    with pytest.raises(ValueError, match="unfinished run with other settings: job was mine and is other"):
        train(other.update, other.states, loop, Run(run.folder, {"job": "other"}, ranks), str)
    assert other.calls == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_run_that_stopped_on_values_that_are_not_finite_goes_on_from_the_good_weights(
    run, regression, loop, whole, assert_same_run, bad
):
    first, second = regression(), regression()
    impatient = loop.model_copy(update={"max_nonfinite_steps": 1})

    def update(step: int) -> dict[str, float]:
        return first.update(step) if step < 3 else {"loss": bad, "grad_norm": bad}

    with pytest.raises(FloatingPointError, match=r"loss, grad_norm not finite in 1 steps in a row, the last being 3"):
        train(update, first.states, impatient, run, str)
    history = train(second.update, second.states, impatient, run, str)
    assert second.calls == [3]
    assert_same_run(whole, (second.network, history))


def test_a_request_to_stop_saves_the_step_and_a_second_run_goes_on(run, regression, loop, whole, assert_same_run):
    first, second = regression(), regression()

    def update(step: int) -> dict[str, float]:
        if step == 2:
            (run.folder / STOP_FILE).touch()
        return first.update(step)

    with pytest.raises(Interrupted, match="run was stopped and saved after step 3 of 4"):
        train(update, first.states, loop, run, str)
    (run.folder / STOP_FILE).unlink()
    history = train(second.update, second.states, loop, run, str)
    assert (first.calls, second.calls) == ([0, 1, 2], [3])
    assert_same_run(whole, (second.network, history))


def test_a_request_to_stop_in_the_last_step_comes_too_late(run, regression, loop):
    training = regression()
    (run.folder).mkdir()
    (run.folder / STOP_FILE).touch()
    assert len(train(training.update, training.states, loop.model_copy(update={"steps": 1}), run, str)) == 1


def test_values_may_differ_from_step_to_step(run, loop):
    history = train(lambda step: {"even": 1.0} if step % 2 == 0 else {"odd": 2.0}, {}, loop, run, str)
    expected = pd.DataFrame({"step": range(4), "even": [1.0, None] * 2, "odd": [None, 2.0] * 2})
    pd.testing.assert_frame_equal(history, expected)


def shown(events) -> dict[str, list[tuple[int, float]]]:
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def columns(history: pd.DataFrame) -> dict[str, list[tuple[int, float]]]:
    """Every value with its step, in the float32 of event files."""
    values = history.set_index("step").astype("float32")
    return {str(name): list(values[name].dropna().items()) for name in values}


def test_the_events_are_the_history(run, regression, loop, recorded):
    training = regression()
    history = train(training.update, training.states, loop, run, str)
    assert shown(recorded(run.folder)) == columns(history)


def test_a_killed_and_resumed_run_shows_each_step_once(run, ranks, loop, recorded):
    """The first process is killed in step 3, with a checkpoint of two steps, so that step 2 is done again.

    Nothing is learned in it: autograd refuses to work in the fork of a process in which it has worked.
    """
    calls: list[int] = []

    def update(step: int) -> dict[str, float]:
        calls.append(step)
        return {"loss": 1 / (1 + step)}

    def kill(step: int) -> dict[str, float]:
        return update(step) if step < 3 else os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            train(kill, {}, loop, run, str)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    time.sleep(1)  # event files are named, and read in order, by the second
    history = train(update, {}, loop, Run(run.folder, run.identity, ranks), str)
    assert calls == [2, 3]
    assert shown(recorded(run.folder)) == columns(history)


def test_an_interrupted_run_shows_each_step_once(run, regression, loop, interrupt, recorded):
    first, second = regression(), regression()
    with interrupt(loop_module, 3):
        loop_module.train(first.update, first.states, loop, run, str)
    assert [step for step, _ in shown(recorded(run.folder))["loss"]] == [0, 1, 2]
    time.sleep(1)  # as above; within a second the number of the file counts, the tenth before the ninth
    history = train(second.update, second.states, loop, run, str)
    assert shown(recorded(run.folder)) == columns(history)


def test_a_run_that_starts_afresh_hides_what_was_there(run, regression, loop, recorded):
    first, second = regression(), regression()
    train(first.update, first.states, loop, run, str)
    for checkpoint in run.folder.glob("step-*"):
        shutil.rmtree(checkpoint)
    history = train(second.update, second.states, loop.model_copy(update={"steps": 2}), run, str)
    assert shown(recorded(run.folder)) == columns(history)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_events_take_values_that_are_not_finite(run, loop, recorded, bad):
    train(lambda step: {"loss": bad if step == 1 else 1.0}, {}, loop, run, str)
    values = [value for _, value in shown(recorded(run.folder))["loss"]]
    assert values == pytest.approx([1.0, bad, 1.0, 1.0], nan_ok=True)


def test_rank_0_alone_writes_events(run, ranks, monkeypatch):
    monkeypatch.setattr(ranks, "index", 1)
    with run.recording(0):
        run.record(0, {"loss": 1.0})
        run.flush_events()
    assert not run.folder.exists()
