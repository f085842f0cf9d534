"""The whole main job, killed again and again."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from support import PROJECT

KILLS = 6


def start(data: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "kedro", "run", "--env=test", "--pipelines=distill", f"--params=data={data}"]
    environment = os.environ | {"DO_NOT_TRACK": "1"}
    # what was finished before a kill is found again by --only-missing-outputs
    command += ["--only-missing-outputs"] if data.exists() else []
    return subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def models(data: Path) -> dict[str, dict[str, bytes]]:
    """The newest weights of every model, by dataset and file."""
    found = {}
    for dataset in sorted((data / "06_models").iterdir()):
        versions = sorted(dataset.glob(f"*/{dataset.name}"))
        for path in sorted(versions[-1].rglob("*.safetensors")) if versions else ():
            tensors = {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}
            found[f"{dataset.name}/{path.relative_to(versions[-1])}"] = tensors
    return found


@pytest.mark.slow
@pytest.mark.crash
def test_the_main_job_killed_six_times_ends_with_the_same_bytes(tmp_path):
    began = time.monotonic()
    assert start(tmp_path / "whole").wait() == 0
    lasted, draws, kills = time.monotonic() - began, random.Random(5), 0
    while kills < KILLS:
        run = start(tmp_path / "killed")
        try:
            run.wait(timeout=draws.uniform(0.3, 0.8) * lasted)
            break
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.wait()
            kills += 1
    assert kills
    assert start(tmp_path / "killed").wait() == 0
    whole, killed = models(tmp_path / "whole"), models(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    assert not [name for name in whole if whole[name] != killed[name]]
