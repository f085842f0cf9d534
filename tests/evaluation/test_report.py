"""The report: its verdict, what it escapes, and that it needs nothing but itself."""

import math

import pandas as pd
import pytest
from PIL import Image

from onex_distill.evaluation.measures import COLUMNS
from onex_distill.evaluation.params import ReportParams
from onex_distill.evaluation.published import SOURCE, published_table
from onex_distill.evaluation.report.charts import Point, lines, scatter
from onex_distill.evaluation.report.markdown import markdown
from onex_distill.evaluation.report.page import Contents, page
from onex_distill.evaluation.report.verdict import verdict
from onex_distill.evaluation.tables import COMPARISON
from onex_distill.metrics.labelled import labelled_grid


def params(**changes):
    fields = {"student": "student", "published": None, "meaningless": False}
    return ReportParams.model_validate(fields | {"alignment_points": 2.0, "diversity_ratio": 1.1} | changes)


@pytest.fixture
def metrics():
    table = {
        "method": ["teacher", "teacher_null", "student"],
        "nfe": [56.0, 56.0, 1.6667],
        "fid": [math.nan, 2.0, 9.0],
        "alignment": [0.998, 0.996, 0.961],
        "diversity": [10.0, 10.1, 11.5],
    }
    frame = pd.DataFrame(table)
    for name in ("fid", "alignment", "diversity"):
        frame[f"{name}_low"], frame[f"{name}_high"] = 0.99 * frame[name], 1.01 * frame[name]
    return frame


def contents(metrics):
    measurements = pd.DataFrame(columns=COLUMNS)
    keys = {"teacher": "teacher", "teacher_null": "teacher_null", "student": "student"}
    for method, key in keys.items():
        row = {"method": method, "key": key, "metric": "fid", "reason": "it <cannot> be" if key == "teacher" else ""}
        measurements.loc[len(measurements)] = pd.Series(row)
    losses = pd.DataFrame({"run": "a & b", "step": [1, 2], "loss": "student_loss", "value": [1.0, 0.5]})
    image = Image.new("RGB", (20, 10))
    comparisons = pd.DataFrame(columns=COMPARISON)
    return Contents(metrics, measurements, comparisons, losses, image, image, {"seed": 1})


def test_the_verdict_judges_by_teacher_floor_and_aims(metrics):
    sentences = verdict(metrics, "teacher", "teacher_null", None, params())
    text = " ".join(sentences)
    assert sentences[0] == "student misses its aim for alignment, and meets that for diversity."
    assert "1.67 evaluations of the network where the teacher needs 56: 33.6 times fewer" in text
    assert "3.7 points below it, which misses the aim of at most 2 points below" in text
    assert "is 4.5 times the floor" in text
    assert "is 1.15 times the teacher's, which meets the aim of 1.1" in text


def test_the_student_is_held_against_its_target(metrics):
    alpha = metrics.iloc[[0]].assign(method="teacher_alpha", alignment=0.99, diversity=11.73, fid=1.6)
    table = pd.concat([metrics, alpha])
    said = verdict(table, "teacher", "teacher_null", "teacher_alpha", params())[-1]
    assert "target is teacher_alpha" in said
    assert "alignment is 0.961 where the target's is 0.990, and 98.0 % of its diversity is kept" in said
    assert (
        verdict(table.drop(columns=["alignment", "diversity"]), "teacher", None, "teacher_alpha", params())[-1] != said
    )
    assert "target" not in " ".join(verdict(table, "teacher", None, None, params()))


@pytest.mark.parametrize(
    ("points", "ratio", "first"),
    [
        (4.0, 1.1, "student meets its aims for alignment and diversity."),
        (2.0, 1.2, "student misses its aims for alignment and diversity."),
        (None, 1.2, "student misses its aim for diversity."),
    ],
)
def test_the_first_sentence_is_the_judgement(metrics, points, ratio, first):
    judged = params(alignment_points=points, diversity_ratio=ratio)
    assert verdict(metrics, "teacher", None, None, judged)[0] == first


def test_charts_zoom_on_students_and_show_what_the_teacher_reaches(metrics):
    teacher_2 = metrics.iloc[[0]].assign(method="teacher_2", nfe=4.0, alignment=0.376)
    given = contents(pd.concat([metrics, teacher_2]))
    row = {"method": "teacher_2", "key": "teacher_2", "metric": "fid", "reason": ""}
    given.measurements.loc[len(given.measurements)] = pd.Series(row)
    html = page(given, params())
    charts = html.partition("<h2>Quality against cost</h2>")[2].partition("<h2>")[0]
    assert charts.count("<circle") == 2  # the student's alone
    assert charts.count('class="level"') == 2
    assert ">teacher_null</text>" in charts
    assert ">teacher</text>" in charts
    assert "teacher_2" not in charts


def test_losses_that_never_meet_have_charts_of_their_own(metrics):
    rows = [("run", step, "residual_loss", 0.1) for step in range(5)]
    rows += [("run", step, name, 5.0) for step in range(5, 9) for name in ("generator_loss", "output_loss")]
    losses = pd.DataFrame(rows, columns=["run", "step", "loss", "value"])
    html = page(contents(metrics)._replace(losses=losses), params())
    trainings = html.partition("<h2>Trainings</h2>")[2].partition("<h2>")[0]
    assert trainings.count("<svg") == 2
    assert "Losses of run, steps 0 to 4" in trainings
    assert "Losses of run, steps 5 to 8" in trainings


def test_without_a_null_row_there_is_no_floor_and_without_aims_no_judgement(metrics):
    free = params(alignment_points=None, diversity_ratio=None)
    text = " ".join(verdict(metrics[metrics["method"] != "teacher_null"], "teacher", "teacher_null", None, free))
    assert "has no floor to be judged by" in text
    assert "aim" not in text


def test_the_student_may_be_named_by_its_key(metrics):
    named = metrics.replace("student", "fractional_1.50")
    given = contents(metrics)
    renamed = given.measurements.replace({"method": {"student": "fractional_1.50"}})
    assert "fractional_1.50 makes an image" in page(given._replace(metrics=named, measurements=renamed), params())


def test_a_student_without_a_row_is_named(metrics):
    with pytest.raises(ValueError, match=r"report\.student 'other' is no row; rows: teacher, teacher_null, student"):
        verdict(metrics, "teacher", None, None, params(student="other"))


def test_the_page_stands_alone_and_escapes_what_it_shows(metrics):
    html = page(
        contents(metrics.replace("student", "<b>student")), params(student="<b>student", published="sd3_medium")
    )
    assert "http" not in html
    assert "<script" not in html
    assert "<b>student" not in html
    assert "it &lt;cannot&gt; be" in html
    assert html.count("<caption>") == html.count("<table>")
    assert html.count("<img ") == html.count('<img alt="')
    assert 'scope="row"' in html
    assert "published in arXiv 2604.04018, not measured here" in html
    assert "prefers-color-scheme:dark" in html
    assert len(html) < 3_000_000


@pytest.mark.parametrize("meaningless", [True, False])
def test_test_sizes_have_a_banner(metrics, meaningless):
    html = page(contents(metrics), params(meaningless=meaningless))
    assert ("no number on this page means anything" in html) == meaningless


def test_text_has_ours_and_the_published_rows_apart(metrics):
    text = markdown(metrics, contents(metrics).measurements, "sd3_medium")
    ours, published = text.split("# Published in arXiv 2604.04018, not measured here")
    assert "| student | 1.67 | 9.00 [8.91, 9.09] | 0.961 [0.951, 0.971] |" in ours
    assert "no fid for teacher: it <cannot> be" in ours
    assert "1.x-Distill fast" in published
    assert "1.x-Distill fast" not in ours
    assert "dpg_relation" not in ours


@pytest.mark.parametrize(("teacher", "student"), [("sd3_medium", "1.x-Distill slow"), ("sd35_large", "1.x-Distill")])
def test_published_rows_have_dpg_and_diversity_where_the_paper_gives_them(teacher, student):
    table = published_table(teacher).set_index("method")
    assert table["source"].eq(SOURCE).all()
    assert (
        table["dpg"].dropna().to_dict()
        == {
            "sd3_medium": {"teacher": 85.46, student: 86.13},
            "sd35_large": {"teacher": 84.74, student: 85.11},
        }[teacher]
    )
    parts = table.loc[student, [name for name in table if name.startswith("dpg_")]]
    assert parts.astype(float).mean() == pytest.approx({"sd3_medium": 90.884, "sd35_large": 90.386}[teacher])
    if teacher == "sd3_medium":
        assert table.loc[student, "lpips_diversity"] / table.loc["teacher", "lpips_diversity"] == pytest.approx(
            0.975, abs=5e-4
        )
        assert table["lpips_diversity"].notna().sum() == 4


def test_grids_have_labels_and_keep_pixels():
    image = Image.new("RGB", (32, 32), (200, 10, 10))
    sheet = labelled_grid([("first", [image, image]), ("a longer label", [image, image])], ["one", "two"])
    counts = sheet.getcolors(10**6)
    assert {colour: count for count, colour in counts}[(200, 10, 10)] == 4 * 96 * 96
    assert sheet.width > 2 * 96


def test_charts_place_points_and_say_what_they_show():
    chart = scatter([Point("a", 1.0, 2.0, 1.5, 2.5), Point("b", math.nan, 1.0, 1.0, 1.0)], "x", "y", "y against x")
    assert chart.count("<circle") == 1
    assert 'aria-label="y against x"' in chart
    assert scatter([], "x", "y", "nothing") == ""
    assert lines([("loss", [1, 2, 3], [3.0, math.nan, 1.0])], "step", "loss", "falls").count("<polyline") == 1
