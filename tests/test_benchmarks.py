"""The benchmark on a model of no size: what it counts is exact, what it times is only there."""

import json
import subprocess
import sys

import pytest

from support import PROJECT

SIZES = "--blocks 6 --band 1 3 --heads 1 --latent-size 4 --tokens 4 --batches 1 2 --repeats 1 --threads 1"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    report = tmp_path_factory.mktemp("benchmark") / "docs/sampling.md"
    command = [sys.executable, "benchmarks/sampling.py", *SIZES.split(), "--report", str(report)]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    return result.stdout, report.read_text()


def test_it_ends_with_one_json_line(finished):
    result = json.loads(finished[0].splitlines()[-1])
    assert list(result) == ["transformer_ratio", "image_ratio", "flops_ratio", "hook_overhead"]
    assert result["transformer_ratio"] > result["image_ratio"] > 1
    # 56 / (2 - 2/6) = 33.6, less what the compensation and the parts outside the blocks cost
    assert 30 < result["flops_ratio"] < 33.6
    assert abs(result["hook_overhead"]) < 0.5


def test_the_report_has_a_row_per_batch_size(finished):
    output, report = finished
    assert report in output
    rows = [line for line in report.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| 1", "| 2"]
    assert len({row.count("|") for row in rows}) == 1
    assert "at most 33.6" in report
    assert max(map(len, (line for line in report.splitlines() if not line.startswith("|")))) <= 120
