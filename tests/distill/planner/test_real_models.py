"""The real configurations at the true shapes of their models: configuration files alone, no weights."""

from functools import partial
from typing import Any

import pytest

from onex_distill.distill.planner import encoding_need, gib, on_accelerator, remedy, stage_one_need, stage_two_need
from onex_distill.models.online import DTYPES
from onex_distill.models.teacher import TeacherFolder
from published_models import write_configs
from true_size import CONFS, READER, TOKENS, conf_parameters

DEVICES = {"sd3_medium": 79, "sd35_medium": 79, "sd35_large": 79, "sd3_medium_24gb": 23.5, "sd35_large_80gb": 79}
GIB = 2**30
FITS_24_GB = {  # as it is counted: eight ranks split SD3 Medium finely enough, with checkpointing, for cards of 24 GB
    "sd3_medium": True,
    "sd35_medium": False,
    "sd35_large": False,
    "sd3_medium_24gb": True,
    "sd35_large_80gb": False,
}


def confs() -> list[Any]:
    """Every configuration; those that another one of the same shapes or the same device stands for are slow."""
    slow = ("sd35_medium", "sd35_large_80gb")
    return [pytest.param(conf, marks=pytest.mark.slow if conf in slow else ()) for conf in CONFS]


@pytest.mark.parametrize("conf", confs())
def test_a_real_model_fits_by_its_settings(tmp_path, conf):
    teacher, parameters = TeacherFolder(path=write_configs(CONFS[conf], tmp_path)), conf_parameters(conf)
    one, two = partial(stage_one_need, teacher, TOKENS), partial(stage_two_need, teacher, READER, TOKENS)
    compute, batch = parameters["compute"], parameters["student"]["stage_one"].batch_size
    assert batch == 64  # published: 8 x 8, in parts where it does not fit at once
    assert parameters["student"]["stage_two"].batch_size == 32
    needs = [
        one(parameters["student"]["stage_one"], compute),
        two(parameters["student"]["stage_two"], compute),
        two(parameters["fractional_167"]["cotraining"], compute),
    ]
    assert parameters["text"].dtype == "bf16"
    if parameters["text"].encoding == "stored":
        needs.append(encoding_need(teacher, DTYPES["bf16"]))
    most = max(gib(on_accelerator(need.memory, compute.ranks)) for need in needs)
    assert most <= DEVICES[conf]
    assert (most <= DEVICES["sd3_medium_24gb"]) is FITS_24_GB[conf]


def test_what_does_not_fit_is_told_what_would(tmp_path):
    teacher, parameters = TeacherFolder(path=write_configs("sd35_large", tmp_path)), conf_parameters("sd35_large")
    one, params = partial(stage_one_need, teacher, TOKENS), parameters["student"]["stage_one"]
    assert one(params, parameters["compute"]).memory > 24 * GIB
    advice = remedy(one, params, parameters["compute"], 24 * GIB)
    assert advice.startswith("it fits, in")
    assert "micro_batch_size 1" in advice


def test_an_accelerator_holds_more_than_tensors():
    assert on_accelerator(20 * GIB, 1) == 21.5 * GIB
    assert on_accelerator(20 * GIB, 8) == 22.5 * GIB


def test_text_encoders_count_in_their_precision(tmp_path):
    teacher = TeacherFolder(path=write_configs("sd3_medium", tmp_path))
    half, whole = (encoding_need(teacher, DTYPES[name]).memory for name in ("bf16", "fp32"))
    assert whole == 2 * half
    assert gib(half) == pytest.approx(10.4, abs=0.1)
