"""What a GPU would be timed by, on a tiny model and the CPU: every variant that a CPU has."""

import pytest
import torch

import true_size_parts
import true_size_speed
from onex_distill.distill.stage_two.backbones import RecogniserParams
from published import write_checkpoint
from true_size_parts import Parts, build, conf_parameters
from true_size_speed import VARIANTS, share_of_peak, time_variant

CONF = "sd3_medium_24gb"


def write_tiny_configs(model, folder):
    write_checkpoint(model, folder, ["a"])
    for weights in folder.rglob("*.safetensors*"):
        weights.unlink()
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("true size")
    parameters = conf_parameters(CONF)
    group = parameters["fractional_167"]
    backbone = RecogniserParams(kind="recogniser")
    tiny = group["cotraining"].model_copy(update={"backbone": backbone})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(true_size_parts, "write_configs", write_tiny_configs)
        build("sd3_medium", folder, 64, {**parameters, "fractional_167": {**group, "cotraining": tiny}})
    return folder


@pytest.fixture
def timed(folder):
    def run(name):
        variant = VARIANTS[name]
        return time_variant(Parts(folder, CONF, "cpu", compile=variant.compile, attention=variant.attention), variant)

    return run


def test_every_choice_and_the_published_order_of_work_is_a_variant():
    choices = {(variant.compile, variant.attention) for variant in VARIANTS.values()}
    assert choices == {("none", "sdpa"), ("none", "flash"), ("none", "cudnn"), ("blocks", "sdpa")}
    assert [name for name, variant in VARIANTS.items() if variant.order == "published"] == ["stage_one published"]


@pytest.mark.slow
def test_our_order_of_work_takes_fewer_flops_than_the_published_one(timed, monkeypatch):
    monkeypatch.setattr(true_size_speed, "TIMED", 1)
    ours, published = timed("stage_one none sdpa"), timed("stage_one published")
    for row in (ours, published):
        assert row["images_per_second"] == pytest.approx(1 / row["seconds"], rel=0.01)
        assert row["share_of_peak"] is None  # no published peak for this CPU
    assert 0 < ours["tflops"] < published["tflops"]


def test_a_sample_is_timed_again_and_again(timed, folder):
    row = timed("sample none flash")
    assert row["seconds"] > 0
    assert row["tflops"] > 0
    assert len(list(folder.glob("sample *"))) == 4  # one that warms up, and three


def test_the_share_is_of_the_published_peak(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    assert share_of_peak(989e12, 2.0, torch.device("cuda")) == 0.5
    assert share_of_peak(None, 2.0, torch.device("cuda")) is None
