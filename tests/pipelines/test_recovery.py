"""The recovery pipeline on the students of conf/test."""

import shutil

import pandas as pd
import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from plotly.io import read_json
from pydantic import ValidationError

from onex_distill.evaluation.studies.recovery import add_recovered
from onex_distill.evaluation.studies.recovery_params import RecoveryParams
from support import PROJECT, newest

METHODS = {"alone": {"uncached", "plain", "compensated"}}
METHODS["cotraining"] = METHODS["alone"] | {"uncompensated"}


@pytest.fixture(scope="module")
def data(distilled, run_pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recovery") / "data"
    shutil.copytree(distilled, folder)
    run_pipeline("recovery", {"data": str(folder)})
    return folder


@pytest.fixture
def recovery_parameters():
    bootstrap_project(PROJECT)
    with KedroSession.create(project_path=PROJECT, env="test") as session:
        return session.load_context().params["recovery"]


@pytest.fixture(scope="module")
def table(data):
    return pd.read_parquet(newest(data, "08_reporting/recovery.parquet"))


@pytest.mark.slow
def test_a_row_per_training_seed_and_method(table):
    found = {training: set(rows["method"]) for training, rows in table.groupby("training")}
    assert found == METHODS
    assert len(table) == 2 * sum(map(len, METHODS.values()))
    assert set(table["seed"]) == {1, 2}


@pytest.mark.slow
def test_uncached_and_plain_are_the_ends_of_the_scale(table):
    uncached, plain = (table[table["method"] == method] for method in ("uncached", "plain"))
    assert (uncached["fid_uncached"] == 0).all()
    assert (plain["fid_uncached"] > 1e-3).all()
    assert uncached["recovered_fid_uncached"].to_list() == pytest.approx([1] * 4)
    assert plain["recovered_fid_uncached"].to_list() == pytest.approx([0] * 4)


@pytest.mark.slow
def test_alone_leaves_the_student_as_it_is_and_seeds_differ(table):
    alone = table[table["training"] == "alone"].set_index(["method", "seed"])
    assert alone.loc[("uncached", 1), "fid"] == alone.loc[("uncached", 2), "fid"]
    assert alone.loc[("compensated", 1), "fid"] != alone.loc[("compensated", 2), "fid"]
    together = table[table["training"] == "cotraining"].set_index(["method", "seed"])
    assert together.loc[("compensated", 1), "fid"] != together.loc[("compensated", 2), "fid"]
    assert together.loc[("compensated", 1), "fid"] != together.loc[("uncompensated", 1), "fid"]


@pytest.mark.slow
def test_the_summary_and_the_plot_hold_every_method(data, table):
    summary = pd.read_parquet(newest(data, "08_reporting/recovery_summary.parquet"))
    assert len(summary) == 7
    rows = table[(table["training"] == "alone") & (table["method"] == "compensated")]
    chosen = summary[(summary["training"] == "alone") & (summary["method"] == "compensated")].iloc[0]
    assert chosen["fid_uncached_mean"] == pytest.approx(rows["fid_uncached"].mean())
    assert chosen["fid_uncached_std"] == pytest.approx(rows["fid_uncached"].std())
    names = {trace.name for trace in read_json(newest(data, "08_reporting/recovery_plot.json")).data}
    assert names == METHODS["cotraining"]


def test_the_share_is_that_of_plain_cachings_loss():
    metrics = {"alignment": [0.9, 0.8, 0.88], "fid": [10.0, 30.0, 12.0], "fid_uncached": [0.0, 8.0, 2.0]}
    table = add_recovered(pd.DataFrame({"method": ["uncached", "plain", "compensated"], **metrics}))
    assert table["recovered_alignment"].to_list() == pytest.approx([1, 0, 0.8])
    assert table["recovered_fid"].to_list() == pytest.approx([1, 0, 0.9])
    assert table["recovered_fid_uncached"].to_list() == pytest.approx([1, 0, 0.75])


def test_where_plain_caching_loses_nothing_there_is_no_share():
    metrics = {"alignment": [0.9, 0.9], "fid": [10.0, 30.0], "fid_uncached": [0.0, 8.0]}
    table = add_recovered(pd.DataFrame({"method": ["uncached", "plain"], **metrics}))
    assert table["recovered_alignment"].isna().all()


@pytest.mark.parametrize(
    ("group", "name", "value", "message"),
    [
        ("alone", "candidates", [[[1, 3]]], "must name the same single set of bands"),
        ("uncached", "num_inference_steps", 4, "must be the same in every training, got .*'uncached': 4"),
        ("alone", "compensation_warmup", 3, "compensation_warmup 3 would train the student too"),
    ],
)
def test_trainings_that_do_not_compare_are_refused(recovery_parameters, group, name, value, message):
    parameters = recovery_parameters.model_dump(mode="json")
    changed = parameters | {group: parameters[group] | {name: value}}
    assert recovery_parameters.bands == ((1, 5),)
    with pytest.raises(ValidationError, match=message):
        RecoveryParams(**changed)
