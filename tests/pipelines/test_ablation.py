"""The ablation: which runs it makes, that it goes on where it was, and what its tables hold."""

import pandas as pd
import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from onex_distill.distill.stage_one import trainer as stage_one
from onex_distill.evaluation.studies.ablation import summarise_variations
from onex_distill.evaluation.studies.ablation_params import VARIED, AblationParams
from onex_distill.pipelines.ablation.nodes import plot_alignment_against_diversity
from support import PROJECT, newest


@pytest.fixture(scope="module")
def params() -> AblationParams:
    bootstrap_project(PROJECT)
    with KedroSession.create(project_path=PROJECT, env="base") as session:
        parameters: AblationParams = session.load_context().params["ablation"]
    return parameters


def test_the_settings_of_the_base_vary_one_factor_at_a_time_with_three_seeds(params):
    settings = pd.DataFrame([setting.columns for setting in params.settings()])
    counts = {name: settings[name].mode()[0] for name in VARIED}
    differs = settings[VARIED] != pd.Series(counts)
    assert (differs.drop(columns="importance_axis").sum(axis=1) <= 1).all()
    assert (settings.loc[differs["importance_axis"], "importance"] == "c").all()  # uniform is so on either axis
    assert (settings.groupby(VARIED)["seed"].nunique() >= 3).all()
    assert {0.0, 0.5, 0.8, 0.94, 1.0} <= set(settings["alpha"])
    assert {1, 2, 4} <= set(settings["steps"])
    assert {"uniform", "c"} == set(settings["importance"])
    assert {"sigma", "u"} == set(settings["alpha_axis"])
    curves = settings[settings["importance"] == "c"]
    assert set(zip(curves["alpha_axis"], curves["importance_axis"], strict=True)) == {
        ("sigma", "u"),
        ("sigma", "sigma"),
    }


def test_a_setting_trains_what_its_columns_say(params):
    for setting in params.settings():
        training, columns = setting.training, setting.columns
        assert (training.guidance.alpha, training.guidance.axis) == (columns["alpha"], columns["alpha_axis"])
        importance = (columns["importance"], columns["importance_axis"])
        assert (training.importance.curve, training.importance.axis) == importance
        assert (training.num_inference_steps, training.seed) == (columns["steps"], columns["seed"])
        same = {"seed": 0, "num_inference_steps": 2, "guidance": params.training.guidance}
        unvaried = {**same, "importance": params.training.importance}
        assert training.model_copy(update=unvaried) == params.training.model_copy(update=unvaried)


def test_an_interrupted_ablation_goes_on_where_it_was(run_pipeline, tmp_path, monkeypatch):
    trained: list[tuple[str, int]] = []
    train = stage_one.train

    def counted(update, states, loop, run, describe):
        trained.append((run.folder.parent.name, run.ranks.index))
        if len(trained) == 3:
            raise OSError("no space left")
        return train(update, states, loop, run, describe)

    monkeypatch.setattr(stage_one, "train", counted)
    with pytest.raises(OSError, match="no space left"):
        run_pipeline("ablation", {"data": str(tmp_path)})

    run_pipeline("ablation", {"data": str(tmp_path)})
    names = [name for name, _ in trained]
    assert len(names) == 5  # two finished, one failed and ran again, one more
    assert names[2] == names[3]
    table = pd.read_csv(newest(tmp_path, "08_reporting/ablation.csv"))
    assert list(table.columns[:6]) == [*VARIED, "seed"]
    assert {"alignment", "diversity", "fid", "entropy_background", "total_variation_size"} <= set(table.columns)
    assert len(table) == 4
    assert table.notna().all().all()
    targets = pd.read_csv(newest(tmp_path, "08_reporting/ablation_targets.csv"))
    assert list(zip(targets["alpha"], targets["alpha_axis"], strict=True)) == [(0.0, "u"), (1.0, "sigma")]
    assert targets.set_index("alpha").loc[1.0, "fid"] == pytest.approx(0, abs=1e-3)  # the guided teacher itself
    assert targets.set_index("alpha").loc[0.0, "fid"] > 1e-3


def test_the_summary_is_mean_and_deviation_over_seeds():
    row = {"alpha": 0.5, "importance": "c", "steps": 2, "alpha_axis": "sigma", "importance_axis": "u"}
    table = pd.DataFrame([{**row, "seed": seed, "fid": fid} for seed, fid in ((1, 1.0), (2, 2.0), (3, 6.0))])
    summary = summarise_variations(table)
    assert summary[["fid_mean", "fid_std"]].to_numpy().tolist() == [[3.0, pytest.approx(7**0.5)]]
    assert summary[VARIED].iloc[0].to_dict() == row


def test_the_curve_follows_alpha_alone():
    same = {"importance": "c", "alpha_axis": "sigma", "importance_axis": "u", "alignment": 0.9}
    rows = [(1.0, 2, 30.0), (0.0, 2, 60.0), (0.5, 2, 50.0), (0.5, 1, 10.0)]
    table = pd.DataFrame(
        [{"alpha": alpha, "steps": steps, **same, "diversity": diversity} for alpha, steps, diversity in rows]
    )
    summary = summarise_variations(pd.concat([table.assign(seed=1), table.assign(seed=2)]))
    targets = pd.DataFrame({"alpha": [1.0, 0.5, 0.5], "alpha_axis": ["sigma", "u", "sigma"], "alignment": 1.0})
    figure = plot_alignment_against_diversity(summary, targets.assign(diversity=[40.0, 45.0, 55.0]))
    curves = {trace.name: list(trace.x) for trace in figure.data}
    assert curves["students along alpha"] == [60.0, 50.0, 30.0]
    assert curves["their targets: the teacher along alpha"] == [55.0, 40.0]


def test_the_picture_shows_what_was_measured():
    row = {"alpha": 1.0, "importance": "c", "steps": 2, "alpha_axis": "sigma", "importance_axis": "u"}
    table = pd.DataFrame([{**row, "seed": seed, "clip_score": 0.3, "lpips_diversity": 0.6} for seed in (1, 2)])
    figure = plot_alignment_against_diversity(summarise_variations(table), table.iloc[:1])
    assert [(list(trace.x), list(trace.y)) for trace in figure.data] == [([0.6], [0.3])] * 3
    bare = table.drop(columns=["clip_score", "lpips_diversity"]).assign(fid=1.0)
    assert "no measure" in plot_alignment_against_diversity(summarise_variations(bare), bare).layout.title.text


def test_a_target_is_sampled_once_for_all_students_that_should_become_it(params):
    targets = params.targets()
    assert len(targets) == len(set(targets)) < len(params.variations)
    assert {(variation.alpha, variation.alpha_axis) for variation in params.variations} == set(targets)


def test_a_best_student_needs_a_validation(params):
    training = params.training.model_copy(update={"select": "best"})
    with pytest.raises(ValueError, match=r"training\.select 'best' needs a validation, and here is none; set last"):
        AblationParams(**dict(params) | {"training": training})
