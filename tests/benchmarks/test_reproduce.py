"""Seeds and summary of the documented command that makes the tables of docs/."""

import os
import sys
from pathlib import Path

import pandas as pd
import pytest
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from scipy import stats

import reproduce
from onex_distill.recipe import RecipeConfigLoader
from support import PROJECT


def test_the_seeds_are_those_of_the_configuration():
    conf = RecipeConfigLoader(str(PROJECT / "conf"), base_env="base", default_run_env="base")["parameters"]
    for name, seed in reproduce.SEEDED.items():
        found = conf
        for part in name.split("."):
            found = found[part]
        assert found == seed, name
    (_, params), (fronts, same) = reproduce.runs_of("seed-3")
    assert [param.partition("=")[0] for param in params] == list(reproduce.SEEDED)
    assert "student.stage_one.seed=2012" in params
    assert (fronts, same) == (["--pipelines=pareto", "--to-outputs=dial_front,fractional_150_front"], params)


def test_what_a_part_publishes_is_what_its_pipelines_save():
    bootstrap_project(PROJECT)
    with KedroSession.create(project_path=PROJECT, env="base") as session:
        catalog = session.load_context().catalog
    for part in {*reproduce.TABLES, *reproduce.PLOTS}:
        datasets = [catalog.get(name) for name in pipelines[part].all_outputs()]
        saved = {Path(str(getattr(dataset, "_filepath", ""))).name for dataset in datasets}
        plots = {f"{name}_plot.json" for name in reproduce.PLOTS.get(part, [])}
        assert {*reproduce.TABLES.get(part, []), *plots} <= saved, part


def metrics(folder: Path, alignment: float) -> Path:
    path = folder / "08_reporting/metrics.csv/2026-01-01/metrics.csv"
    path.parent.mkdir(parents=True)
    row = {"method": "student", **dict.fromkeys(reproduce.SUMMARISED, 1.0), "alignment": alignment}
    pd.DataFrame([row]).to_csv(path, index=False)
    for name in reproduce.FRONTS:
        path = folder / f"08_reporting/{name}_front.parquet/2026-01-01/{name}_front.parquet"
        path.parent.mkdir(parents=True)
        pd.DataFrame([{**row, "method": name, "nfe": 1.5, "alignment": alignment - 0.02}]).to_parquet(path)
    return folder


def test_seeds_are_summarised_by_mean_and_t_interval(tmp_path):
    folders = [metrics(tmp_path / str(value), value) for value in (0.96, 0.97, 0.98)]
    found = reproduce.summarise_seeds([reproduce.seed_table(folder, folder) for folder in folders])
    assert set(found["method"]) == {"student", "dial_1.50", "fractional_150_1.50"}
    dial = found.set_index(["method", "metric"]).loc[("dial_1.50", "alignment")]
    assert dial["mean"] == pytest.approx(0.95)
    table = found[found["method"] == "student"].set_index("metric")
    row, reach = table.loc["alignment"], stats.t.ppf(0.975, 2) * 0.01 / 3**0.5
    assert [row["seed_1"], row["seed_2"], row["seed_3"]] == [0.96, 0.97, 0.98]
    assert row["mean"] == pytest.approx(0.97)
    assert [row["low"], row["high"]] == pytest.approx([0.97 - reach, 0.97 + reach])
    assert table.loc["fid", "low"] == table.loc["fid", "high"] == 1.0


def test_parts_go_on_from_copies_of_the_main_job_on_one_core_each_and_run_once(tmp_path, monkeypatch):
    metrics(tmp_path / reproduce.MAIN, 0.96)
    ran = []

    def stopped(*_command, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(reproduce.subprocess, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        reproduce.run_part("seed-2", tmp_path)
    monkeypatch.setattr(reproduce.subprocess, "run", lambda command, **options: ran.append((command, options["env"])))
    for part in (reproduce.MAIN, "seed-2", "ablation", "seed-2"):
        reproduce.run_part(part, tmp_path)
    (_, main_env), (seed, seed_env), (fronts, _), (ablation, _) = ran
    assert main_env.get("OMP_NUM_THREADS") == os.environ.get("OMP_NUM_THREADS")
    assert seed_env["OMP_NUM_THREADS"] == "1"
    assert f"--from-nodes={reproduce.FIRST}" in seed
    assert f"data={tmp_path / 'seed-2'},reference.stage_one.seed=1011" in seed[-1]
    assert fronts[-1] == seed[-1]
    assert ablation[-2:] == ["--pipelines=ablation", f"--params=data={tmp_path / 'ablation'}"]
    assert reproduce.newest(tmp_path / "seed-2", "metrics.csv").exists()


def test_the_newest_version_is_published_and_a_missing_one_is_named(tmp_path):
    for version in ("2026-01-01", "2026-01-02"):
        folder = tmp_path / "08_reporting" / "metrics.csv" / version
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(version)
    assert reproduce.newest(tmp_path, "metrics.csv").read_text() == "2026-01-02"
    with pytest.raises(FileNotFoundError, match=r"has no pareto\.csv"):
        reproduce.newest(tmp_path, "pareto.csv")


def test_parts_without_the_main_job_are_refused_before_anything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--data", str(tmp_path), "--parts", "reuse"])
    with pytest.raises(SystemExit):
        reproduce.main()
    assert f"{tmp_path} has no finished part distill" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
