"""Faults of the machine and of the numbers during a training, each really made to happen."""

import subprocess
import sys

import pandas as pd
import pytest
import torch
from torch import nn

from onex_distill.distill.stage_one.params import GuidanceParams
from onex_distill.engine.job import write_job
from onex_distill.engine.launch import launch
from onex_distill.engine.loop import train

# file sizes limited to a few kilobytes: the system then refuses to write on, as a full disk does
LIMITED = """
import resource, signal, sys
from pathlib import Path
from onex_distill.engine.job import read_job
from onex_distill.engine.launch import launch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
job = read_job(Path(sys.argv[1]))[0]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
launch(job)
"""


def losses(folder):
    return pd.read_parquet(folder / "result/losses.parquet")


@pytest.fixture
def halted(jobs, tmp_path):
    """A job whose folder holds the checkpoints of steps 2 and 4 of 4, and no result yet."""
    job = jobs("stage_one", tmp_path / "run")
    launch(job)
    (tmp_path / "run/result").rename(tmp_path / "whole")
    return job


@pytest.mark.crash
@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint(jobs, tmp_path):
    job = jobs("stage_one", tmp_path / "run", steps=6, checkpoint_every=2)
    launch(job.model_copy(update={"folder": tmp_path / "whole"}))
    (tmp_path / "run").mkdir()
    write_job(job, job.identity(), tmp_path / "job.json")
    size = max(path.stat().st_size for path in (tmp_path / "whole").glob("step-*/rank-00000.safetensors"))
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "job.json")]
    full = subprocess.run([*command, str(size - 1000)], capture_output=True, text=True)
    assert full.returncode != 0
    message = full.stderr.strip().splitlines()[-1]
    assert "the checkpoint of step 2 could not be written to" in message
    assert "free space there and run again" in message
    assert not any((tmp_path / "run").glob(".partial-step-*"))
    launch(job)
    pd.testing.assert_frame_equal(losses(tmp_path / "run"), losses(tmp_path / "whole"), check_exact=True)


@pytest.mark.parametrize("name", ["rank-00000.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(halted, tmp_path, name, damage, caplog):
    path = tmp_path / "run/step-00000004" / name
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[0 if name == "state.json" else -1] ^= 1
        path.write_bytes(content)
    launch(halted)
    assert "is damaged" in caplog.text
    assert "falling back to the one before" in caplog.text
    files = sorted(p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*") if p.is_file())
    assert all((tmp_path / "whole" / f).read_bytes() == (tmp_path / "run/result" / f).read_bytes() for f in files)


class Weights(nn.Module):
    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1))


def nan_from(first: int, module: Weights):
    def update(step: int) -> dict[str, float]:
        if step >= first:
            return {"loss": float("nan")}
        module.value.data += 1
        return {"loss": 0.0}

    return update


def test_a_loss_that_stays_nan_stops_the_run_and_keeps_the_good_weights(run, loop):
    module = Weights()
    loop = loop.model_copy(update={"steps": 20, "checkpoint_every": 20, "max_nonfinite_steps": 3})
    with pytest.raises(FloatingPointError, match=r"loss not finite in 3 steps in a row, the last being 9 \(seed 9\)"):
        train(nan_from(7, module), {"module": module}, loop, run, lambda step: f"seed {step}")
    restored = Weights()
    with pytest.raises(FloatingPointError, match="the last being 9"):
        train(nan_from(0, restored), {"module": restored}, loop, run, str)
    assert restored.value.item() == 7
    assert (run.folder / "step-00000007").is_dir()


def test_one_bad_step_is_passed_over(run, loop, caplog):
    module = Weights()

    def update(step: int) -> dict[str, float]:
        return {"loss": float("inf") if step == 1 else 0.0}

    history = train(update, {"module": module}, loop, run, str)
    assert len(history) == 4
    assert "step 1 is not finite and changed no weight" in caplog.text


def test_gradients_that_are_not_finite_change_no_weight(jobs, inputs, tmp_path):
    guidance = GuidanceParams(scale=1e38, alpha=1.0, axis="sigma")
    job = jobs("stage_one", tmp_path, guidance=guidance, max_nonfinite_steps=2)
    with pytest.raises(FloatingPointError, match=r"seed 5, rows \[.*\] of the prompt embeddings"):
        launch(job)


@pytest.mark.parametrize("real", [True, False])
def test_running_out_of_memory_says_what_to_lower(run, loop, real):
    def update(step: int) -> dict[str, float]:
        if real:
            torch.empty(1 << 48)
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(MemoryError, match=r"out of memory in step 0: lower its batch_size, or set compute\.shar"):
        train(update, {"module": Weights()}, loop, run, str)


def test_changed_parameters_are_named_and_refused(halted, jobs, tmp_path):
    changed = jobs("stage_one", tmp_path / "run", seed=77, ema_decay=0.25)
    message = r"params\.ema_decay was 0\.5 and is 0\.25, params\.seed was 5 and is 77; restore them .* or delete"
    with pytest.raises(ValueError, match=message):
        launch(changed)


def test_changed_inputs_are_named_and_refused(halted, inputs, tmp_path):
    weights = inputs.teacher.path / "transformer/diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for name in ("checksums.json", "../checksums.json"):
        (inputs.teacher.path / "transformer" / name).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"input\.teacher has other contents"):
        launch(halted)
