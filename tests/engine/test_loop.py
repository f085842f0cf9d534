import math

import pandas as pd
import pytest
import torch
from torch import nn

from onex_distill.engine import loop as loop_module
from onex_distill.engine.loop import train
from onex_distill.engine.optimisation import Stepper
from onex_distill.engine.randomness import generator


class Regression:
    """A small training whose every step depends on all steps before it."""

    def __init__(self, optimizer) -> None:
        torch.manual_seed(0)
        self.network = nn.Linear(4, 1)
        self.stepper = Stepper(self.network.parameters(), optimizer, total_steps=4)
        self.states = {"network": self.network, "stepper": self.stepper}
        self.calls: list[int] = []

    def update(self, step: int) -> dict[str, float]:
        self.calls.append(step)
        batch = torch.randn(8, 4, generator=generator(0, step, "batch"))
        loss = self.network(batch).square().mean()
        return {"loss": float(loss.detach()), "grad_norm": self.stepper.step(loss)}


def test_resuming_equals_running_through(tmp_path, optimizer, loop, interrupt, assert_same_run):
    whole = Regression(optimizer)
    expected = train(whole.update, whole.states, loop, tmp_path / "whole", "mine")
    first, second = Regression(optimizer), Regression(optimizer)
    with interrupt(loop_module, 3):
        loop_module.train(first.update, first.states, loop, tmp_path / "parts", "mine")
    history = train(second.update, second.states, loop, tmp_path / "parts", "mine")
    assert (first.calls, second.calls) == ([0, 1, 2], [2, 3])
    assert_same_run((whole.network, expected), (second.network, history))


def test_a_finished_run_does_not_train_again(tmp_path, optimizer, loop, assert_same_run):
    first, second = Regression(optimizer), Regression(optimizer)
    history = train(first.update, first.states, loop, tmp_path, "mine")
    again = train(second.update, second.states, loop, tmp_path, "mine")
    assert second.calls == []
    assert_same_run((first.network, history), (second.network, again))


def test_the_last_step_is_saved_whatever_the_interval(tmp_path, optimizer, loop):
    run = Regression(optimizer)
    train(run.update, run.states, loop.model_copy(update={"checkpoint_every": 3}), tmp_path, "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


def test_another_runs_folder_is_refused_before_training(tmp_path, optimizer, loop):
    run = Regression(optimizer)
    train(run.update, run.states, loop, tmp_path, "mine")
    other = Regression(optimizer)
    with pytest.raises(ValueError, match="other parameters or inputs"):
        train(other.update, other.states, loop, tmp_path, "other")
    assert other.calls == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_stops_the_run(tmp_path, optimizer, loop, bad):
    run = Regression(optimizer)

    def update(step: int) -> dict[str, float]:
        return run.update(step) | ({"loss": bad} if step == 3 else {})

    with pytest.raises(FloatingPointError, match="loss is not finite at step 3"):
        train(update, run.states, loop, tmp_path, "mine")
    resumed = Regression(optimizer)
    history = train(resumed.update, resumed.states, loop, tmp_path, "mine")
    assert resumed.calls == [2, 3]
    assert history["loss"].map(math.isfinite).all()


def test_values_may_differ_from_step_to_step(tmp_path, loop):
    history = train(lambda step: {"even": 1.0} if step % 2 == 0 else {"odd": 2.0}, {}, loop, tmp_path, "mine")
    expected = pd.DataFrame({"step": range(4), "even": [1.0, None] * 2, "odd": [None, 2.0] * 2})
    pd.testing.assert_frame_equal(history, expected)
