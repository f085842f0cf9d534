"""Measurements of known features: values, reasons of empty cells, identities, comparisons."""

import json
import math

import pandas as pd
import pytest
import torch
from torch import Tensor

from onex_distill.evaluation.measures import measure
from onex_distill.evaluation.scored import ConfidenceParams, MetricParams, Scored
from onex_distill.evaluation.tables import comparison_table, prompt_table, require_same_identity, wide_table
from onex_distill.metrics.confidence import jackknife_deviation, prompt_groups, t_interval, t_p_value
from onex_distill.metrics.distances import diversity, frechet_distance
from onex_distill.metrics.frechet import frechet_at_infinity, trace_frechet_distance
from onex_distill.metrics.kernels import cmmd, kid
from onex_distill.metrics.manifolds import density_coverage, precision_recall
from onex_distill.metrics.vendi import vendi_score
from onex_distill.storage.tensor_table import TensorTable

CONFIDENCE = ConfidenceParams(level=0.95, draws=400, groups=8, seed=0)
PROMPTS, EACH = 24, 4


@pytest.fixture
def make(tmp_path):
    """``make(name, columns, seed)``: a method's features of 24 prompts with 4 images each, by one network ``net``."""

    def build(name: str, columns: dict[str, Tensor], seed: int = 100, missing: str = "") -> Scored:
        rows = PROMPTS * EACH
        index = pd.DataFrame(
            {
                "prompt_row": [row // EACH for row in range(rows)],
                "text": [f"caption {row // EACH}" for row in range(rows)],
                "noise_seed": range(seed, seed + rows),
                "method": name,
            }
        )
        columns = {f"net.{row}": values.float() for row, values in columns.items()}
        table = TensorTable.write(tmp_path / name, index, columns | {"row": torch.arange(rows)})
        described = {
            "name": "net",
            "identity": {"model": "net", "recipe": "plain", "weights_sha256": "abc"},
            "rows": {},
        }
        if missing:
            described = {"name": "net", "missing": missing}
        (tmp_path / name / "networks.json").write_text(json.dumps([described]))
        return Scored(name, table)

    return build


def drawn(seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(PROMPTS * EACH, 6, generator=torch.Generator().manual_seed(seed)) + shift


def params(row: str | None) -> MetricParams:
    return MetricParams(features=row, neighbours=3)


def test_means_are_over_prompts_with_an_interval_around_them(make):
    values = torch.rand(PROMPTS * EACH, generator=torch.Generator().manual_seed(1))
    teacher = make("teacher", {"score": values})
    row = measure("alignment", [teacher], teacher, params("net.score"), CONFIDENCE).iloc[0]
    assert row["value"] == pytest.approx(float(values.mean()), abs=1e-6)
    assert row["low"] < row["value"] < row["high"]
    assert row["units"] == pytest.approx(values.view(PROMPTS, EACH).mean(1).tolist(), abs=1e-6)


def test_the_extrapolated_distance_has_a_jackknifes_interval(make):
    teacher, other = make("teacher", {"rows": drawn(0)}), make("other", {"rows": drawn(1, 0.5)})
    row = (
        measure("fd_infinity", [teacher, other], teacher, params("net.rows"), CONFIDENCE)
        .set_index("method")
        .loc["other"]
    )
    assert row["value"] == pytest.approx(frechet_at_infinity(drawn(1, 0.5), drawn(0), CONFIDENCE.seed))
    assert row["low"] < row["value"] < row["high"]
    assert len(row["units"]) == CONFIDENCE.groups
    few = make("few", {"rows": drawn(1)})
    small = Scored("small", few.table, tuple(range(8)))
    reasons = measure("fd_infinity", [small], teacher, params("net.rows"), CONFIDENCE)["reason"]
    assert "20" in reasons.iloc[0]


def test_distances_are_clean_fids_and_the_reference_has_none(make):
    teacher, other = make("teacher", {"rows": drawn(0)}), make("other", {"rows": drawn(1, 0.5)})
    table = measure("fid", [teacher, other], teacher, params("net.rows"), CONFIDENCE).set_index("method")
    assert table.loc["other", "value"] == pytest.approx(frechet_distance(drawn(1, 0.5), drawn(0)))
    assert table.loc["other", "low"] < table.loc["other", "value"] < table.loc["other", "high"]
    assert math.isnan(table.loc["teacher", "value"])
    assert table.loc["teacher", "reason"] == "distances are to these images"


PROMPT_OF = torch.arange(PROMPTS).repeat_interleave(EACH)
GROUP_OF = prompt_groups(PROMPT_OF, CONFIDENCE.groups, CONFIDENCE.seed)
OWN, OTHER = 1.3 * drawn(1, 0.5), drawn(0)  # of the set that is measured, and of the reference


@pytest.fixture
def measured(make):
    """``measured(metric)``: its columns for a set of features ``OWN`` beside a reference of ``OTHER``."""
    teacher, own = make("teacher", {"rows": OTHER}), make("own", {"rows": OWN})

    def run(metric: str) -> pd.DataFrame:
        return measure(metric, [own], teacher, params("net.rows"), CONFIDENCE).set_index("metric")

    return run


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("kid", {"kid": kid(OWN, OTHER, 0)}),
        ("cmmd", {"cmmd": cmmd(OWN, OTHER)}),
        ("precision_recall", dict(zip(("precision", "recall"), precision_recall(OWN, OTHER, 3), strict=True))),
        ("density_coverage", dict(zip(("density", "coverage"), density_coverage(OWN, OTHER, 3), strict=True))),
        ("vendi", {"vendi": vendi_score(OWN)}),
        ("diversity", {"diversity": diversity(OWN, PROMPT_OF)}),
    ],
)
def test_a_set_is_measured_by_the_function_of_its_metric(measured, metric, expected):
    table = measured(metric)
    assert table["value"].to_dict() == pytest.approx(expected, rel=1e-5)
    assert (table["low"] < table["value"]).all()
    assert (table["high"] > table["value"]).all()


@pytest.mark.parametrize(
    ("metric", "columns"),
    [
        ("fid", {"fid": trace_frechet_distance}),
        ("fd_infinity", {"fd_infinity": lambda own, other: frechet_at_infinity(own, other, 0)}),
        (
            "density_coverage",
            {
                "density": lambda own, other: density_coverage(own, other, 3)[0],
                "coverage": lambda own, other: density_coverage(own, other, 3)[1],
            },
        ),
        ("vendi", {"vendi": lambda own, other: vendi_score(own)}),
    ],
)
def test_a_jackknife_leaves_the_prompts_of_a_group_out_of_both_sets(measured, metric, columns):
    table = measured(metric)
    for column, function in columns.items():
        kept = [group != GROUP_OF for group in range(CONFIDENCE.groups)]
        units = [function(OWN[left], OTHER[left]) for left in kept]
        assert table.loc[column, "units"] == pytest.approx(units, rel=1e-5)
        deviation = jackknife_deviation(torch.tensor(units, dtype=torch.float64))
        low, high = t_interval(table.loc[column, "value"], deviation, CONFIDENCE.groups, CONFIDENCE.level)
        assert (table.loc[column, "low"], table.loc[column, "high"]) == pytest.approx((max(low, 0), high), rel=1e-4)


@pytest.mark.parametrize(("metric", "function"), [("kid", lambda x, y: kid(x, y, 0)), ("cmmd", cmmd)])
def test_kernel_distances_are_also_measured_between_blocks_of_the_same_prompts(measured, metric, function):
    blocks = [group == GROUP_OF for group in range(CONFIDENCE.groups)]
    units = [function(OWN[block], OTHER[block]) for block in blocks]
    assert measured(metric).loc[metric, "units"] == pytest.approx(units, rel=1e-4)


def test_distances_are_compared_by_their_paired_jackknife_and_holm(make):
    teacher, first = make("teacher", {"rows": OTHER}), make("first", {"rows": OWN})
    second = make("second", {"rows": drawn(2, 0.4)})
    found = [measure(m, [first, second], teacher, params("net.rows"), CONFIDENCE) for m in ("fid", "vendi")]
    table = comparison_table(pd.concat(found, ignore_index=True), CONFIDENCE).set_index("metric")
    for metric, rows in zip(("fid", "vendi"), found, strict=True):
        row, values, units = table.loc[metric], rows["value"], torch.tensor(rows["units"].tolist())
        difference, deviation = values[0] - values[1], jackknife_deviation(units[0] - units[1])
        low, high = t_interval(difference, deviation, CONFIDENCE.groups, CONFIDENCE.level)
        assert (row["difference"], row["low"], row["high"]) == pytest.approx((difference, low, high), rel=1e-4)
        assert row["p_value"] == pytest.approx(t_p_value(difference, deviation, CONFIDENCE.groups), rel=1e-3)
    smaller, larger = sorted(table["p_value"])
    assert sorted(table["p_holm"]) == pytest.approx([min(2 * smaller, 1), min(max(2 * smaller, larger), 1)])


def test_a_missing_network_leaves_its_cell_empty_and_the_rest_is_made(make):
    teacher = make("teacher", {"score": torch.ones(96)})
    absent = make("absent", {}, missing="weights.safetensors is missing; fetch it")
    table = measure("alignment", [teacher, absent], teacher, params("net.score"), CONFIDENCE)
    assert table["value"].tolist()[0] == 1
    assert math.isnan(table["value"].tolist()[1])
    assert table["reason"].tolist() == ["", "weights.safetensors is missing; fetch it"]


def test_what_does_not_apply_to_a_caption_is_said(make):
    values = torch.ones(96)
    values[8:12] = torch.nan
    row = measure("alignment", [one := make("teacher", {"score": values})], one, params("net.score"), CONFIDENCE).iloc[
        0
    ]
    assert row["reason"] == "it does not apply to 4 of 96 captions, such as 'caption 2'"


def test_features_that_are_not_finite_are_refused_with_their_image(make):
    rows = drawn(0)
    rows[5, 2] = torch.nan
    teacher, broken = make("teacher", {"rows": drawn(1)}), make("broken", {"rows": rows})
    with pytest.raises(ValueError, match=r"1 of 96 rows 'net\.rows' of broken are not finite, the first is image 5"):
        measure("fid", [broken], teacher, params("net.rows"), CONFIDENCE)


@pytest.mark.parametrize(
    ("row", "message"), [("other.rows", "names no network; known: net"), ("net.pool", "'net' has no row 'pool'")]
)
def test_rows_that_nobody_gives_are_refused(make, row, message):
    teacher = make("teacher", {"rows": drawn(0)})
    with pytest.raises(ValueError, match=message):
        measure("diversity", [teacher], teacher, params(row), CONFIDENCE)


def test_a_metric_without_rows_is_not_measured(make):
    teacher = make("teacher", {"rows": drawn(0)})
    assert measure("clip_score", [teacher], teacher, params(None), CONFIDENCE).empty


def test_differences_are_paired_and_tested(make):
    base = torch.rand(96, generator=torch.Generator().manual_seed(2))
    noise = 0.01 * torch.randn(96, generator=torch.Generator().manual_seed(3))
    sets = [make("teacher", {"score": base}), make("student", {"score": base - 0.05 + noise})]
    measured = measure("alignment", sets, sets[0], params("net.score"), CONFIDENCE)
    assert measured["low"].iloc[0] < measured["value"].iloc[1]  # alone, the two could not be told apart
    row = comparison_table(measured, CONFIDENCE).iloc[0]
    assert row["difference"] == pytest.approx(0.05, abs=0.005)
    assert 0.045 < row["low"] < row["difference"] < row["high"] < 0.055
    assert row["p_value"] < 0.01
    assert row["test"] == "sign-flip permutation"


def test_rows_of_other_identity_are_not_subtracted(make):
    sets = [make("teacher", {"score": torch.ones(96)}), make("null", {"score": torch.ones(96)}, seed=5000)]
    measured = measure("alignment", sets, sets[0], params("net.score"), CONFIDENCE)
    row = comparison_table(measured, CONFIDENCE).iloc[0]
    assert math.isnan(row["difference"])
    assert row["reason"].startswith("seeds differs: ")
    with pytest.raises(ValueError, match="alignment of teacher and null do not compare; seeds differs"):
        require_same_identity(measured.iloc[0], measured.iloc[1])


def test_the_tables_have_a_row_per_method_and_one_per_prompt(make):
    sets = [make("teacher", {"score": torch.ones(96)}), make("student", {"score": torch.zeros(96)})]
    measured = measure("alignment", sets, sets[0], params("net.score"), CONFIDENCE)
    wide = wide_table(pd.DataFrame({"method": ["teacher", "student"], "nfe": [56.0, 1.67]}), measured)
    assert list(wide.columns) == ["method", "nfe", "alignment", "alignment_low", "alignment_high"]
    assert wide["alignment"].tolist() == [1, 0]
    texts = pd.Series([f"caption {row}" for row in range(PROMPTS)])
    prompts = prompt_table(measured, texts)
    assert len(prompts) == 2 * PROMPTS
    assert prompts.loc[prompts["method"] == "student", "alignment"].eq(0).all()
    assert prompts["text"].iloc[-1] == "caption 23"
