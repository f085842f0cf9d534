import errno
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from onex_distill.engine import checkpoint
from onex_distill.engine.checkpoint import load_latest, save_checkpoint
from onex_distill.engine.optimisation import OptimizerParams, Stepper, moving_average
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.run import Run


class Value:
    """The least that a checkpoint can hold."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.value = state_dict["value"]


def training_states(optimizer: OptimizerParams, ranks: Ranks, seed: int, steps: int) -> dict[str, Any]:
    """A network with its optimizer, schedule and average after some steps."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.GroupNorm(2, 4), nn.Linear(4, 1))
    stepper = Stepper(network.named_parameters(), optimizer, total_steps=10, ranks=ranks)
    average = moving_average(network, 0.9)
    for _ in range(steps):
        stepper.step(network(torch.randn(5, 3)).square().mean())
        average.update_parameters(network)
    return {"network": network, "stepper": stepper, "average": average}


def assert_equal_trees(first: Any, second: Any) -> None:
    """Tensors bit for bit, with their dtype; a tuple may come back as a list."""
    if isinstance(first, Tensor):
        assert first.dtype == second.dtype
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for key in first:
            assert_equal_trees(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            assert_equal_trees(a, b)
    else:
        assert first == second


def save_steps(run: Run, *steps: int) -> None:
    for step in steps:
        save_checkpoint(run, step, {"x": Value(torch.tensor([step]))}, [{"step": step - 1}])


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_training_states_come_back_bit_for_bit(run, ranks, optimizer):
    saved = training_states(optimizer, ranks, seed=0, steps=3)
    save_checkpoint(run, 3, saved, [{"step": 2, "loss": 0.1}])
    restored = training_states(optimizer, ranks, seed=1, steps=1)
    assert load_latest(run, restored) == (3, [{"step": 2, "loss": 0.1}])
    for name, state in saved.items():
        assert_equal_trees(state.state_dict(), restored[name].state_dict())


def test_restored_states_go_on_alike(run, ranks, optimizer):
    saved = training_states(optimizer, ranks, seed=0, steps=3)
    save_checkpoint(run, 3, saved, [])
    restored = training_states(optimizer, ranks, seed=1, steps=0)
    load_latest(run, restored)
    batch = torch.randn(5, 3)
    for states in (saved, restored):
        states["stepper"].step(states["network"](batch).square().mean())
        states["average"].update_parameters(states["network"])
    assert_equal_trees(saved["average"].state_dict(), restored["average"].state_dict())
    assert saved["stepper"].scheduler.get_last_lr() == restored["stepper"].scheduler.get_last_lr()


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor(3, dtype=torch.int64),
        torch.randn(2, 3).T,
        torch.randn(2, 3).bfloat16(),
        {0: {"exp": torch.ones(2)}, 1: {"exp": torch.zeros(2)}},
        [1, 2.5, "text", None, True, [torch.ones(1)]],
        {},
    ],
)
def test_any_nesting_comes_back(run, value):
    save_checkpoint(run, 1, {"x": Value(value)}, [])
    restored = Value(None)
    load_latest(run, {"x": restored})
    assert_equal_trees(value, restored.value)


def test_a_checkpoint_does_not_share_memory_with_the_training(run):
    value = Value(torch.zeros(2))
    save_checkpoint(run, 1, {"x": value}, [])
    value.value.add_(1)
    restored = Value(None)
    load_latest(run, {"x": restored})
    assert restored.value.tolist() == [0.0, 0.0]


def test_what_cannot_be_written_is_named(run):
    with pytest.raises(TypeError, match="x/value/1: object"):
        save_checkpoint(run, 1, {"x": Value([1, object()])}, [])
    assert load_latest(run, {}) == (0, [])


def test_an_empty_run_starts_at_zero(run):
    value = Value("untouched")
    assert load_latest(run, {"x": value}) == (0, [])
    assert value.value == "untouched"


def test_only_the_newest_two_are_kept(run):
    save_steps(run, 2, 4, 100, 20000)
    assert names_in(run.folder) == ["step-00000100", "step-00020000"]


def damage_tensors(folder: Path) -> None:
    path = folder / "rank-00000.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def cut_state(folder: Path) -> None:
    path = folder / "state.json"
    path.write_text(path.read_text()[:20])


def drop_tensors(folder: Path) -> None:
    (folder / "rank-00000.safetensors").unlink()


def drop_checksum(folder: Path) -> None:
    (folder / "rank-00000.sha256").unlink()


def drop_ranks(folder: Path) -> None:
    path = folder / "state.json"
    meta = json.loads(path.read_text())
    del meta["ranks"]
    path.write_text(json.dumps(meta))


@pytest.mark.parametrize("damage", [damage_tensors, cut_state, drop_tensors, drop_checksum, drop_ranks])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(run, caplog, damage):
    save_steps(run, 2, 4)
    damage(run.folder / "step-00000004")
    value = Value(None)
    with caplog.at_level(logging.WARNING):
        done, history = load_latest(run, {"x": value})
    assert (done, history, value.value.tolist()) == (2, [{"step": 1}], [2])
    assert "step-00000004 is damaged" in caplog.text
    save_steps(run, 4)
    assert load_latest(run, {"x": value})[0] == 4


def test_another_runs_checkpoint_is_refused_and_the_change_named(run, ranks):
    save_steps(run, 2)
    value = Value("untouched")
    other = Run(run.folder, {**run.identity, "params.seed": 3, "input.teacher": "abc"}, ranks)
    with pytest.raises(ValueError, match="unfinished run with other settings") as error:
        load_latest(other, {"x": value})
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert str(run.folder) in message
    assert "params.seed was None and is 3" in message
    assert "input.teacher has other contents" in message
    assert value.value == "untouched"


def test_many_changes_are_counted(run, ranks):
    save_steps(run, 2)
    other = Run(run.folder, {f"params.{letter}": 1 for letter in "abcdefg"}, ranks)
    with pytest.raises(
        ValueError, match=r"job was mine and is None, params\.a was .*, params\.c .* and 4 more; restore"
    ):
        load_latest(other, {"x": Value(None)})


def test_a_leftover_of_an_interrupted_write_does_not_matter(run):
    save_steps(run, 2)
    leftover = run.folder / ".partial-step-00000004"
    leftover.mkdir()
    (leftover / "rank-00000.safetensors").write_bytes(b"half")
    value = Value(None)
    assert load_latest(run, {"x": value})[0] == 2
    save_steps(run, 4)
    assert load_latest(run, {"x": value})[0] == 4
    assert not leftover.exists()


def test_a_write_that_fails_says_what_to_do_and_leaves_the_checkpoint_before(run, monkeypatch):
    save_steps(run, 2)

    def full(tensors: dict[str, Tensor], path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="the checkpoint of step 4 could not be written to") as error:
        save_steps(run, 4)
    monkeypatch.undo()
    assert error.value.errno == errno.ENOSPC
    assert "free space there and run again" in str(error.value)
    assert names_in(run.folder) == ["step-00000002"]
    assert load_latest(run, {"x": Value(None)})[0] == 2


def test_a_checkpoint_of_fewer_ranks_is_read_with_a_warning(run, caplog):
    save_steps(run, 2)
    path = run.folder / "step-00000002"
    meta = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(meta | {"ranks": 2}))
    for suffix in ("safetensors", "sha256"):
        (path / f"rank-00001.{suffix}").write_bytes((path / f"rank-00000.{suffix}").read_bytes())
    value = Value(None)
    with caplog.at_level(logging.WARNING):
        assert load_latest(run, {"x": value})[0] == 2
    assert value.value.tolist() == [2]
    assert "began on 2 ranks and goes on with 1" in caplog.text
