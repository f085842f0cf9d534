"""The files of published scorers without a network: a table that says what is missing and how to get it."""

import pandas as pd
import pytest
from torch import hub

from onex_distill.evaluation.scorers import weights
from support import newest


@pytest.fixture
def offline(monkeypatch):
    """Every download fails at once."""

    def refuse(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(weights, "hf_hub_download", refuse)
    monkeypatch.setattr(hub, "download_url_to_file", refuse)


@pytest.mark.parametrize(
    ("pipeline", "remedy"),
    [("fetch_scorers", "cannot be fetched (ConnectionError)"), ("convert_scorers", "--pipelines=fetch_scorers")],
)
def test_without_a_network_every_file_has_its_reason(run_pipeline, offline, tmp_path, pipeline, remedy):
    params = {"data": str(tmp_path / "data"), "scorers": {"folder": str(tmp_path / "scorers")}}
    run_pipeline(pipeline, params, env="sd3_medium")
    name = {"fetch_scorers": "fetched", "convert_scorers": "converted"}[pipeline]
    table = pd.read_parquet(newest(tmp_path / "data", f"08_reporting/{name}_scorers.parquet"))
    assert {"clip_l14", "pick_score", "hps_v21", "image_reward", "blip_vqa", "rtdetr"} <= set(table["network"])
    assert table["state"].eq("missing").all()
    local = table["location"] == "data/01_raw/benchmarks"
    assert table.loc[~local, "reason"].str.contains(remedy, regex=False).all()
    assert table.loc[local, "reason"].str.contains("put it there").all()
    assert table.loc[~local, "reason"].str.contains(str(tmp_path / "scorers"), regex=False).all()
