"""The settings of stage one that the paper published, and what makes a baseline that baseline."""

import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from onex_distill.distill.stage_one.params import StageOneParams
from support import PROJECT

RULES = ("dmd", "dmd2", "tdm", "unguided")


def parameters(env: str) -> dict[str, StageOneParams]:
    bootstrap_project(PROJECT)
    with KedroSession.create(project_path=PROJECT, env=env) as session:
        tree = session.load_context().params
    return {name: tree[name]["stage_one"] for name in ("reference", "student", *RULES)}


@pytest.mark.parametrize("env", ["sd3_medium", "sd35_large"])
def test_the_published_settings(env):
    params = parameters(env)["student"]
    assert (params.num_inference_steps, params.batch_size, params.loop.steps) == (2, 64, 500)
    assert params.guidance.model_dump() == {"scale": 7.0, "alpha": 0.96, "axis": "sigma"}
    assert (params.importance.curve, params.importance.axis, params.importance.smoothing) == ("c", "u", 100.0)
    assert (params.sigma_range, params.matched, params.fake_updates) == ("step", "step_end", 1)
    assert (params.parametrization, params.gradient_checkpointing, params.ema_decay) == ("full", True, 0.0)
    for optimizer, lr, clip_norm in ((params.student, 5e-6, 2.0), (params.fake_score, 4e-5, 1.0)):
        assert (optimizer.kind, optimizer.lr, optimizer.clip_norm) == ("adamw", lr, clip_norm)
        assert (optimizer.betas, optimizer.weight_decay, optimizer.eps) == ((0.0, 0.999), 1e-4, 1e-8)
        assert (optimizer.schedule, optimizer.warmup_steps) == ("constant_with_warmup", 0)


@pytest.mark.parametrize("env", ["base", "sd3_medium", "sd35_large"])
def test_a_baseline_differs_from_the_student_in_its_rule_alone(env):
    params = parameters(env)
    student = params["student"]
    rules = {name: (p.guidance.alpha, p.sigma_range, p.matched, p.fake_updates > 1) for name, p in params.items()}
    assert rules["dmd"] == (1.0, "full", "step_end", False)
    assert rules["dmd2"] == (1.0, "full", "x0", True)
    assert rules["tdm"] == (1.0, "step", "step_end", False)
    assert rules["unguided"] == (0.0, "step", "step_end", False)
    if env == "base":  # where the student regresses too, in fewer steps of another learning rate
        assert all(params[rule].regression is None for rule in RULES)
        learns = {"regression": None, "student": params["reference"].student, "loop": params["tdm"].loop}
        student = student.model_copy(update=learns)
    for rule in RULES:
        assert params[rule].student_updates == student.student_updates
        assert params[rule].guidance.scale == student.guidance.scale
        free = ("guidance", "importance", "sigma_range", "matched", "fake_updates", "loop")
        same = {name: getattr(student, name) for name in free}
        assert params[rule].model_copy(update=same) == student
    assert {params[rule].importance.curve for rule in ("dmd", "dmd2", "tdm")} == {"uniform"}
