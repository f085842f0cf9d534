"""The published scorers that the environments of real models name."""

import pytest
import yaml

from onex_distill.evaluation.features import ScorersParams
from onex_distill.evaluation.measures import MetricsParams
from support import PROJECT

ROWS = {
    "pixels": {"saturation", "contrast"},
    "clip": {"image", "text", "score"},
    "inception": {"pool"},
    "dinov2": {"image"},
    "image_reward": {"score"},
    "lpips": {"distance"},
    "vqa": {"yes"},
    "detector": {"objects"},
}
"""What a network of each kind gives, besides the rows of optional files."""


@pytest.fixture(scope="module")
def written():
    return yaml.safe_load((PROJECT / "conf/sd3/parameters_scoring.yml").read_text())


def test_every_metric_names_a_network_of_the_configuration(written):
    networks = {network.name for network in ScorersParams.model_validate(written["scorers"]).networks}
    metrics = MetricsParams.model_validate(written["metrics"]).model_dump().values()
    named = {metric["features"].split(".")[0] for metric in metrics if metric["features"]}
    assert named <= networks
    assert len(named) >= 9


def test_every_row_of_metrics_and_variants_is_one_of_its_network(written):
    networks = ScorersParams.model_validate(written["scorers"]).networks
    given = {f"{one.name}.{row}" for one in networks for row in (*ROWS[one.kind], *one.optional())}
    metrics = MetricsParams.model_validate(written["metrics"]).model_dump().values()
    scored = yaml.safe_load((PROJECT / "conf/sd3/parameters_score.yml").read_text())["calibration"]["variants"]
    read = {metric["features"] for metric in metrics if metric["features"]}
    assert read <= given
    assert {row for variant in scored for row in variant["rows"]} <= given
    measured = {variant["metric"]: variant["rows"] for variant in scored}
    assert all(written["metrics"][metric]["features"] in rows for metric, rows in measured.items())


def test_every_file_is_pinned_and_every_pickle_is_converted(written):
    for network in ScorersParams.model_validate(written["scorers"]).networks:
        for source in {**network.sources(), **network.optional()}.values():
            benchmark = source.hub == "local" and source.location == "data/01_raw/benchmarks"
            assert benchmark or source.hub == "url" or len(source.revision) == 40
            for file in source.files:
                unsafe = (file.name.endswith((".pt", ".pth", ".bin")), file.name != "inception-2015-12-05.pt")
                assert not all(unsafe), file.name
                assert not file.pickle or file.name.endswith(".safetensors")
