"""Fixtures of the training tests: optimizer settings, loop lengths, and an interruption in the middle of a run."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from onex_distill.engine.loop import LoopParams
from onex_distill.engine.optimisation import OptimizerParams

Interrupt = Callable[[ModuleType, int], AbstractContextManager[None]]


class Interruption(Exception):
    """What stops a run."""


@pytest.fixture(scope="session")
def optimizer() -> OptimizerParams:
    """AdamW whose first step already moves the weights, with a schedule that a resumed run has to continue."""
    return OptimizerParams(
        lr=1e-2,
        betas=(0.5, 0.9),
        weight_decay=1e-4,
        eps=1e-8,
        clip_norm=1.0,
        warmup_steps=0,
        schedule="cosine",
    )


@pytest.fixture(scope="session")
def loop() -> LoopParams:
    """Four steps with a checkpoint in the middle."""
    return LoopParams(steps=4, checkpoint_every=2, log_every=2)


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """``with interrupt(module, step):`` stops the training that ``module`` starts just before ``step``."""

    @contextmanager
    def interrupted(module: ModuleType, at: int) -> Iterator[None]:
        train = module.train

        def stopped(update: Callable[[int], dict[str, float]], *args: Any) -> pd.DataFrame:
            def limited(step: int) -> dict[str, float]:
                if step == at:
                    raise Interruption
                return update(step)

            return train(limited, *args)

        monkeypatch.setattr(module, "train", stopped)
        with pytest.raises(Interruption):
            yield
        monkeypatch.setattr(module, "train", train)

    return interrupted


@pytest.fixture
def assert_same_run() -> Callable[[tuple[nn.Module, pd.DataFrame], tuple[nn.Module, pd.DataFrame]], None]:
    """Check that two runs ended with the same weights and the same losses, bit for bit."""

    def check(first: tuple[nn.Module, pd.DataFrame], second: tuple[nn.Module, pd.DataFrame]) -> None:
        pd.testing.assert_frame_equal(first[1], second[1], check_exact=True)
        states = first[0].state_dict(), second[0].state_dict()
        assert states[0].keys() == states[1].keys()
        different = [name for name, tensor in states[0].items() if not torch.equal(tensor, states[1][name])]
        assert not different

    return check
