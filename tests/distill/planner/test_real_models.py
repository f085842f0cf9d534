"""The real configurations at the true shapes of their models: configuration files alone, no weights."""

from functools import partial

import pytest

from onex_distill.distill.planner import gib, remedy, stage_one_need, stage_two_need
from onex_distill.models.teacher import TeacherFolder
from published_models import write_configs
from true_size import CONFS, READER, TOKENS, conf_parameters

DEVICES = {"sd3_medium": 79, "sd35_medium": 79, "sd35_large": 79, "sd3_medium_24gb": 23.5, "sd35_large_80gb": 79}
GIB = 2**30


@pytest.mark.parametrize("conf", CONFS)
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
    assert max(gib(need.memory) for need in needs) < DEVICES[conf]


def test_what_does_not_fit_is_told_what_would(tmp_path):
    teacher, parameters = TeacherFolder(path=write_configs("sd35_large", tmp_path)), conf_parameters("sd35_large")
    one, params = partial(stage_one_need, teacher, TOKENS), parameters["student"]["stage_one"]
    assert one(params, parameters["compute"]).memory > 24 * GIB
    advice = remedy(one, params, parameters["compute"], 24 * GIB)
    assert advice.startswith("it fits, in")
    assert "micro_batch_size 1" in advice
