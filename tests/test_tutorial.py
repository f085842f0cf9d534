"""The tutorial's commands, run one after the other in a copy of the project, as a newcomer would."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from documents import tutorial_steps
from support import PROJECT


def test_the_tutorial_asks_for_runs_and_files():
    kinds = [kind for kind, _ in tutorial_steps()]
    assert kinds.count("run") >= 5
    assert kinds[-3:] == ["file conf/mine/globals.yml", "file conf/mine/catalog.yml", "run"]


@pytest.mark.slow
def test_the_tutorial_runs_to_its_end(tmp_path):
    listed = subprocess.run(
        ["/usr/bin/env", "git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (PROJECT / name).is_file() and not name.startswith(("docs/", "tests/")):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, tmp_path / name)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(tmp_path / "src")}
    for kind, content in tutorial_steps():
        if kind == "run":
            result = subprocess.run(
                ["/bin/bash", "-euc", content],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                env=environment,
                timeout=900,
            )
            assert result.returncode == 0, f"{content}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
        else:
            file = tmp_path / kind.removeprefix("file ")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
    generated = sorted((tmp_path / "data/test/07_model_output/generated").rglob("*.png"))
    assert len(generated) == 2 * 2 + 96
    (prompts,) = (path for path in (tmp_path / "data/mine/02_intermediate").rglob("prompts.parquet") if path.is_file())
    table = pd.read_parquet(prompts)
    texts = (tmp_path / "mine.txt").read_text(encoding="utf-8").splitlines()
    trained = set(table.loc[table["split"] == "train", "text"])
    assert trained
    assert trained <= set(texts)
