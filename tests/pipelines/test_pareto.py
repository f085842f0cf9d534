"""The pareto pipeline on the students of conf/test."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from plotly.io import read_json

from onex_distill import FractionalStableDiffusion3Pipeline
from onex_distill.evaluation.studies.fronts import TIMES
from support import newest

DIAL = [1.4167, 1.5, 1.5833, 1.6667, 1.75, 1.8333, 2.0]


@pytest.fixture(scope="module")
def data(distilled, run_pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pareto") / "data"
    shutil.copytree(distilled, folder)
    run_pipeline("pareto", {"data": str(folder)})
    return folder


@pytest.fixture(scope="module")
def table(data):
    return pd.read_parquet(newest(data, "08_reporting/pareto.parquet"))


def test_a_row_per_method_and_budget(table):
    required = ["method", "nfe", "nfe_flops", "fid", "alignment", "diversity", *TIMES]
    assert set(required) <= set(table.columns)
    assert table[required].notna().all(axis=None)
    budgets = {method: rows["nfe"].round(4).tolist() for method, rows in table.groupby("method")}
    assert budgets == {"dial": DIAL, "plain": DIAL, "specialised": [1.5, 1.6667, 1.8333]}


def test_every_budget_has_its_own_time(data, table):
    latency = pd.read_parquet(newest(data, "08_reporting/latency.parquet"))
    assert (latency["transformer_seconds"] > 0).all()
    assert (latency["seconds_per_image"] > latency["transformer_seconds"]).all()
    assert latency.groupby("front")["bands"].nunique()["plain"] == len(DIAL)
    for name in TIMES:
        assert sorted(table[name]) == sorted(latency[name])
        plain = table[table["method"] == "plain"].set_index("bands")[name]
        assert plain.to_dict() == latency[latency["front"] == "plain"].set_index("bands")[name].to_dict()


def test_costs_are_honest(table):
    nfe, flops = (table.set_index(["method", "bands"])[name] for name in ("nfe", "nfe_flops"))
    # a block of the middle costs a little more than the mean: the last has no text output
    assert (flops["plain"] <= nfe["plain"] + 1e-6).all()
    assert flops["plain"].to_numpy() == pytest.approx(nfe["plain"].to_numpy(), abs=0.02)
    assert (flops["specialised"] > nfe["specialised"] + 0.005).all()
    assert flops["dial"]["[]"] == pytest.approx(2)
    for bands, value in flops["specialised"].items():
        assert flops["dial"][bands] == value


def test_the_plot_has_a_line_per_method_and_measure(data):
    figure = read_json(newest(data, "08_reporting/pareto_plot.json"))
    measures, methods = 5, 3
    assert len(figure.data) == measures * methods
    assert {line.name for line in figure.data} == {"dial", "plain", "specialised"}


def test_the_exported_dial_picks_its_plan_by_budget(data):
    pipeline = FractionalStableDiffusion3Pipeline.from_pretrained(newest(data, "06_models/dial_pipeline"))
    pipeline.set_progress_bar_config(disable=True)

    def sample(**arguments):
        generator = torch.Generator().manual_seed(0)
        return pipeline("a solid red circle", generator=generator, output_type="pt", **arguments).images

    assert torch.equal(sample(nfe=1.67), sample())
    assert not torch.equal(sample(nfe=1.5), sample())
    with pytest.raises(ValueError, match=r"nfe 1\.3 cannot be met: the trained bands reach 1\.42 to 2\.00"):
        sample(nfe=1.3)


def test_the_search_compares_promising_fixed_and_random_bands(data):
    table = pd.read_parquet(newest(data, "08_reporting/band_search.parquet"))
    predicted = pd.read_parquet(newest(data, "08_reporting/predicted_damage.parquet"))
    assert predicted["predicted"].is_monotonic_increasing
    assert {sum(stop - start for start, stop in bands) for bands in predicted["bands"]} == {4}
    choices = " and ".join(table["choice"]).split(" and ")
    assert sorted(choices) == ["fixed", "random", "search", "search"]
    assert sorted(table["rank"])[:2] == [1, 2]
    assert table[["fid", "alignment", "diversity"]].notna().all(axis=None)
    assert table["fid"].is_monotonic_increasing
    ranks = table[["predicted", "fid"]].rank()
    expected = np.corrcoef(ranks["predicted"], ranks["fid"])[0, 1]
    assert table["rank_correlation"].tolist() == pytest.approx([expected] * len(table))
    figure = read_json(newest(data, "08_reporting/band_search_plot.json"))
    assert sum(len(marks.x) for marks in figure.data) == len(table)
    assert figure.layout.title.text == f"rank correlation {expected:.2f}"
    assert table["nfe"].tolist() == pytest.approx([5 / 3] * len(table))
    assert table["nfe_flops"].tolist() == pytest.approx([5 / 3] * len(table), abs=0.02)


def test_a_sampled_method_takes_a_budget(data, run_pipeline):
    budget = {"methods": {"fractional_167": {"nfe": 2.0}}}
    run_pipeline("evaluation", {"data": str(data), **budget}, node_names=["sample_fractional_167"])
    cost = pd.read_json(newest(data, "07_model_output/fractional_167_cost.json"), typ="series")
    assert cost["nfe"] == 2


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"fixed": [[1, 4]]}, "band_search.fixed skips 3 blocks but nfe 1.67 needs 4 of 12"),
        ({"nfe": None, "nfe_flops": 1.55, "fixed": [[1, 6]]}, "fixed skips 5 blocks but nfe_flops 1.55 needs 6 of 12"),
        ({"fixed": [[0, 4]]}, r"band \[0, 4\] must be"),
        ({"nfe": 1.0}, "no band meets nfe 1.0 in 2 steps"),
        pytest.param({"nfe": None, "nfe_flops": 1.0}, "no band meets nfe_flops 1.0 in 2 steps", marks=pytest.mark.slow),
    ],
)
def test_a_search_that_cannot_be_is_refused(data, run_pipeline, search, message):
    with pytest.raises(ValueError, match=message):
        run_pipeline("pareto", {"data": str(data), "band_search": search}, node_names=["predict_bands"])
