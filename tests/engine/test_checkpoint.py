import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from onex_distill.engine.checkpoint import fingerprint_of, load_latest, module_fingerprint, save_checkpoint
from onex_distill.engine.optimisation import OptimizerParams, Stepper, moving_average


class Value:
    """The least that a checkpoint can hold."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.value = state_dict["value"]


def training_states(optimizer: OptimizerParams, seed: int, steps: int) -> dict[str, Any]:
    """A network with its optimizer, schedule and average after some steps."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.GroupNorm(2, 4), nn.Linear(4, 1))
    stepper = Stepper(network.parameters(), optimizer, total_steps=10)
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


def save_steps(run_dir: Path, *steps: int) -> None:
    run_dir.mkdir(exist_ok=True)
    for step in steps:
        save_checkpoint(run_dir, step, {"x": Value(torch.tensor([step]))}, [{"step": step - 1}], "mine")


def test_training_states_come_back_bit_for_bit(tmp_path, optimizer):
    saved = training_states(optimizer, seed=0, steps=3)
    save_checkpoint(tmp_path, 3, saved, [{"step": 2, "loss": 0.1}], "mine")
    restored = training_states(optimizer, seed=1, steps=1)
    assert load_latest(tmp_path, restored, "mine") == (3, [{"step": 2, "loss": 0.1}])
    for name, state in saved.items():
        assert_equal_trees(state.state_dict(), restored[name].state_dict())


def test_restored_states_go_on_alike(tmp_path, optimizer):
    saved = training_states(optimizer, seed=0, steps=3)
    save_checkpoint(tmp_path, 3, saved, [], "mine")
    restored = training_states(optimizer, seed=1, steps=0)
    load_latest(tmp_path, restored, "mine")
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
def test_any_nesting_comes_back(tmp_path, value):
    save_checkpoint(tmp_path, 1, {"x": Value(value)}, [], "mine")
    restored = Value(None)
    load_latest(tmp_path, {"x": restored}, "mine")
    assert_equal_trees(value, restored.value)


def test_a_checkpoint_does_not_share_memory_with_the_training(tmp_path):
    value = Value(torch.zeros(2))
    save_checkpoint(tmp_path, 1, {"x": value}, [], "mine")
    value.value.add_(1)
    restored = Value(None)
    load_latest(tmp_path, {"x": restored}, "mine")
    assert restored.value.tolist() == [0.0, 0.0]


def test_what_cannot_be_written_is_named(tmp_path):
    with pytest.raises(TypeError, match="x/value/1: object"):
        save_checkpoint(tmp_path, 1, {"x": Value([1, object()])}, [], "mine")
    assert load_latest(tmp_path, {}, "mine") == (0, [])


def test_an_empty_run_starts_at_zero(tmp_path):
    value = Value("untouched")
    assert load_latest(tmp_path, {"x": value}, "mine") == (0, [])
    assert value.value == "untouched"


def test_only_the_newest_two_are_kept(tmp_path):
    save_steps(tmp_path, 2, 4, 100, 20000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000100", "step-00020000"]


def damage_tensors(folder: Path) -> None:
    path = folder / "tensors.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def cut_state(folder: Path) -> None:
    path = folder / "state.json"
    path.write_text(path.read_text()[:20])


def drop_tensors(folder: Path) -> None:
    (folder / "tensors.safetensors").unlink()


def drop_checksum(folder: Path) -> None:
    path = folder / "state.json"
    meta = json.loads(path.read_text())
    del meta["sha256"]
    path.write_text(json.dumps(meta))


@pytest.mark.parametrize("damage", [damage_tensors, cut_state, drop_tensors, drop_checksum])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog, damage):
    save_steps(tmp_path, 2, 4)
    damage(tmp_path / "step-00000004")
    value = Value(None)
    with caplog.at_level(logging.WARNING):
        done, history = load_latest(tmp_path, {"x": value}, "mine")
    assert (done, history, value.value.tolist()) == (2, [{"step": 1}], [2])
    assert "step-00000004 is damaged" in caplog.text
    save_steps(tmp_path, 4)
    assert load_latest(tmp_path, {"x": value}, "mine")[0] == 4


def test_another_runs_checkpoint_is_refused(tmp_path):
    save_steps(tmp_path / "run", 2)
    value = Value("untouched")
    with pytest.raises(ValueError, match="unfinished run with other parameters or inputs") as error:
        load_latest(tmp_path / "run", {"x": value}, "other")
    assert str(tmp_path / "run") in str(error.value)
    assert value.value == "untouched"


def test_a_leftover_of_an_interrupted_write_does_not_matter(tmp_path):
    save_steps(tmp_path, 2)
    leftover = tmp_path / ".partial-00000004"
    leftover.mkdir()
    (leftover / "tensors.safetensors").write_bytes(b"half")
    value = Value(None)
    assert load_latest(tmp_path, {"x": value}, "mine")[0] == 2
    save_steps(tmp_path, 4)
    assert load_latest(tmp_path, {"x": value}, "mine")[0] == 4
    assert not leftover.exists()


def test_a_fingerprint_is_a_function_of_the_values(optimizer):
    assert fingerprint_of(optimizer, 3) == fingerprint_of(optimizer.model_copy(), 3)
    assert fingerprint_of(optimizer, 3) != fingerprint_of(optimizer.model_copy(update={"lr": 0.5}), 3)
    assert fingerprint_of({"a": 1, "b": 2}) == fingerprint_of({"b": 2, "a": 1})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_modules_fingerprint_sees_one_changed_bit(dtype):
    module = nn.Linear(3, 2).to(dtype)
    before = module_fingerprint(module)
    assert module_fingerprint(module) == before
    with torch.no_grad():
        module.weight[0, 0] = -module.weight[0, 0]
    assert module_fingerprint(module) != before
