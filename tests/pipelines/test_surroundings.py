"""Folders of other names, and a working folder inside the project."""

import os
import subprocess
import sys

import pandas as pd
import pytest

from onex_distill.storage.tensor_table import TensorTable
from support import PROJECT, newest


@pytest.mark.parametrize("name", ["with a space", "ünïcödé 图", "100%#1"])
def test_a_data_folder_may_have_any_name(run_pipeline, tmp_path, name):
    data = tmp_path / name / "data"
    run_pipeline("precompute", {"data": str(data)}, to_nodes=["embed_prompts"])
    prompts = pd.read_parquet(newest(data, "02_intermediate/prompts.parquet"))
    embeddings = TensorTable(newest(data, "03_primary/prompt_embeddings"))
    assert embeddings.index["text"].tolist() == prompts["text"].tolist()
    assert not list(data.rglob(".partial-*"))


def test_a_run_from_a_folder_inside_the_project_writes_where_it_was_told(tmp_path):
    command = [
        sys.executable,
        "-m",
        "kedro",
        "run",
        "--env=test",
        "--pipelines=precompute",
        "--to-nodes=plan_evaluation",
    ]
    subprocess.run(
        [*command, f"--params=data={tmp_path}"],
        cwd=PROJECT / "notebooks",
        env=os.environ | {"DO_NOT_TRACK": "1"},
        check=True,
        capture_output=True,
    )
    assert newest(tmp_path, "03_primary/evaluation_plan.parquet").is_file()
    assert not (PROJECT / "notebooks" / "data").exists()
