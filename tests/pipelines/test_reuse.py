"""The reuse pipeline on the students of conf/test."""

import pandas as pd
import pytest
from plotly.io import read_json

from onex_distill.pipelines.reuse.nodes import plot_reuse_error
from support import newest


@pytest.fixture(scope="module")
def table(distilled, run_pipeline):
    run_pipeline("reuse", {"data": str(distilled)})
    return pd.read_parquet(newest(distilled, "08_reporting/reuse_error.parquet"))


def test_every_model_has_every_block_and_band(table):
    assert list(table.columns) == ["model", "step", "block", "stop", "stream", "reuse_error"]
    assert set(table["model"]) == {"teacher", "student_stage_one", "student_stage_two"}
    for _, rows in table.groupby("model"):
        image = rows[rows["stream"] == "image"]
        singles = image[image["stop"] == image["block"] + 1]
        assert singles["block"].tolist() == list(range(12))
        assert set(zip(image["block"], image["stop"], strict=True)) >= {(1, 3), (1, 8)}
    assert (table["reuse_error"] > 0).all()
    assert set(table["step"]) == {1}


def test_the_figure_shows_single_blocks_by_stream_and_model(table, distilled):
    figure = plot_reuse_error(table)
    assert len(figure.data) == 2 * 3
    longest = max(figure.data, key=lambda line: len(line.x))
    assert list(longest.x) == list(range(12))
    saved = read_json(newest(distilled, "08_reporting/reuse_error_plot.json"))
    assert [line.name for line in saved.data] == [line.name for line in figure.data]
