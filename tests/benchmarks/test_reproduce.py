"""Seeds and summary of the documented command that makes the tables of docs/."""

import pandas as pd
import pytest
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
    _, params = reproduce.seed_options(3)
    assert [param.partition("=")[0] for param in params] == list(reproduce.SEEDED)
    assert "student.stage_one.seed=2012" in params


def test_seeds_are_summarised_by_mean_and_t_interval(tmp_path):
    (tmp_path / "reproduced").mkdir()
    for seed, value in zip(reproduce.SEEDS, (0.96, 0.97, 0.98), strict=True):
        row = {"method": "student", **dict.fromkeys(reproduce.SUMMARISED, 1.0), "alignment": value}
        pd.DataFrame([row]).to_csv(tmp_path / "reproduced" / f"seed-{seed}.csv", index=False)
    table = reproduce.summarise_seeds(tmp_path).set_index("metric")
    row, reach = table.loc["alignment"], stats.t.ppf(0.975, 2) * 0.01 / 3**0.5
    assert [row["seed_1"], row["seed_2"], row["seed_3"]] == [0.96, 0.97, 0.98]
    assert row["mean"] == pytest.approx(0.97)
    assert [row["low"], row["high"]] == pytest.approx([0.97 - reach, 0.97 + reach])
    assert table.loc["fid", "low"] == table.loc["fid", "high"] == 1.0


def test_the_newest_version_is_published_and_a_missing_one_is_named(tmp_path):
    for version in ("2026-01-01", "2026-01-02"):
        folder = tmp_path / "08_reporting" / "metrics.csv" / version
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(version)
    assert reproduce.newest(tmp_path, "metrics.csv").read_text() == "2026-01-02"
    with pytest.raises(FileNotFoundError, match=r"has no pareto\.csv"):
        reproduce.newest(tmp_path, "pareto.csv")
