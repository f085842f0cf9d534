"""The real configurations at the true shapes of their models: configuration files alone, no weights."""

import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from onex_distill.distill.planner import gib, stage_one_need, stage_two_need
from onex_distill.models.teacher import TeacherFolder
from onex_distill.storage.model_folder import ModelFolder
from published_models import write_configs
from support import PROJECT

READER = ModelFolder(path=PROJECT / "data/01_raw/recogniser", class_name="onex_distill.shapes.networks.ShapesReader")


@pytest.mark.parametrize("env", ["sd3_medium", "sd35_large"])
def test_a(tmp_path, env):
    teacher = TeacherFolder(path=write_configs(env, tmp_path))
    bootstrap_project(PROJECT)
    with KedroSession.create(project_path=PROJECT, env=env) as session:
        tree = session.load_context().params
    compute = tree["compute"]
    needs = {
        "reference.stage_one": stage_one_need(teacher, 333, tree["reference"]["stage_one"], compute),
        "student.stage_one": stage_one_need(teacher, 333, tree["student"]["stage_one"], compute),
        "student.stage_two": stage_two_need(teacher, READER, 333, tree["student"]["stage_two"], compute),
        "cotraining": stage_two_need(teacher, READER, 333, tree["fractional_167"]["cotraining"], compute),
    }
    print(env, {k: round(gib(n.memory), 2) for k, n in needs.items()})
    assert gib(needs["student.stage_one"].memory) < 79
