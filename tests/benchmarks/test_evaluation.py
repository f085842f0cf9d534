"""The benchmark of evaluations on networks of no size: both sides find the same values, and its last line is JSON."""

import json
import subprocess
import sys

import pytest

from support import PROJECT

pytestmark = pytest.mark.slow  # that both sides agree, tests/metrics and tests/evaluation/scorers say of each value

SIZES = "--prompts 10 --images 2 --size 300 --width 64 --inception small --write"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    report = tmp_path_factory.mktemp("benchmark") / "docs/evaluation.md"
    command = [sys.executable, "benchmarks/evaluation.py", *SIZES.split(), "--report", str(report)]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    return result.stdout, report.read_text()


def test_it_ends_with_one_json_line(finished):
    result = json.loads(finished[0].splitlines()[-1])
    assert list(result) == ["time_ratio", "peak_memory_mib", "images"]
    assert result["images"] == 60  # two methods and the reference
    assert result["time_ratio"] > 1
    assert 100 < result["peak_memory_mib"] < 10_000


def test_the_report_is_what_is_printed_and_both_sides_agree(finished):
    output, report = finished
    assert report in output
    rows = [line.strip("| ").split(" | ") for line in report.splitlines() if line.startswith("| ")]
    heads = next(index for index, row in enumerate(rows) if row[0] == "metric")
    values = {row[0]: [float(cell) for cell in row[1:]] for row in rows[heads + 2 :]}
    assert len(values) == 12
    for metric, (student, libraries, null, null_libraries) in values.items():
        if metric != "dinov2_infinity":  # its subsets are drawn anew
            assert [student, null] == pytest.approx([libraries, null_libraries], rel=0.005, abs=1e-4), metric
