"""What a user can get wrong is answered in one line, before any training."""

import json
import re
import shutil

import pandas as pd
import pytest
from click.testing import CliRunner
from huggingface_hub import constants
from kedro.framework.startup import bootstrap_project
from kedro.validation.exceptions import ParameterValidationError

from onex_distill.cli import cli, readable
from support import PROJECT


@pytest.fixture
def kedro_run(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    metadata = bootstrap_project(PROJECT)

    def run(*params: str) -> str:
        arguments = ["run", "--env=test", "--pipelines=distill"]
        arguments.append(f"--params={','.join((f'data={tmp_path}', *params))}")
        result = CliRunner().invoke(cli, arguments, obj=metadata)
        assert result.exit_code == 1, result.output
        error = result.output[result.output.index("Error: ") :]
        assert "Traceback" not in error
        assert error.count("\n") == 1
        return error

    return run


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "teacher").symlink_to(PROJECT / "data/01_raw/teacher")
    return folder


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("student.stage_one.guidance.alpha=1.5", "guidance.alpha Input should be less than or equal to 1 (got 1.5)"),
        ("student.stage_one.guidance.alpha=-0.1", "greater than or equal to 0 (got -0.1)"),
        (
            "student.stage_one.num_inference_steps=0",
            "num_inference_steps.constrained-int Input should be greater than 0 (got 0)",
        ),
        ("student.stage_one.loop.steps=-3", "loop.steps Input should be greater than 0 (got -3)"),
        ("student.stage_one.guidance.alfa=0.5", "unknown parameter 'alfa'; did you mean 'alpha'?"),
        ("studnt.stage_one.seed=1", "unknown parameter 'studnt'; did you mean 'student'?"),
    ],
)
def test_parameters(kedro_run, param, message):
    assert message in kedro_run(param)


@pytest.mark.parametrize("band", [[0, 4], [8, 12], [3, 20]])
def test_bands_outside_the_model(run_pipeline, tmp_path, band):
    params = {"data": str(tmp_path), "fractional_167": {"cotraining": {"candidates": [[band]]}}}
    with pytest.raises(ValueError, match=r"band .* inside blocks 1 to 10 of 12"):
        run_pipeline("distill", params)


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([[[1, 4], [3, 6]]], r"bands \[1, 4\] and \[3, 6\] overlap; merge them into \[1, 6\] or separate them"),
        ([[[5, 5]]], r"empty range \[5, 5\]"),
        ([[[5, 6], [1, 2]]], "not in ascending order"),
        ([[]], "candidates holds no band"),
    ],
)
def test_candidates_that_are_no_bands(run_pipeline, tmp_path, candidates, message):
    params = {"data": str(tmp_path), "fractional_167": {"cotraining": {"candidates": candidates}}}
    with pytest.raises(ParameterValidationError) as error:
        run_pipeline("distill", params)
    assert re.search(message, readable(error.value))
    assert "\n" not in readable(error.value)


WHOLE = {"size": None, "levels": [1, 2, 3]}  # what a timm backbone sees, and what is read of it


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("convnext_xxlarge.clip_laion2b_soup", "are not in the hub cache; fetch them once with 'hf download timm/"),
        ("convnext_xxlrge", "unknown timm model 'convnext_xxlrge'; did you mean 'convnext_"),
    ],
)
def test_a_backbone_without_weights_offline(run_pipeline, tmp_path, monkeypatch, backbone, message):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    named = {"backbone": {"kind": "timm", "name": backbone, "weights": None, **WHOLE}}
    for params in ({"student": {"stage_two": named}}, {"fractional_167": {"cotraining": named}}):
        with pytest.raises(ValueError, match=message) as error:
            run_pipeline("distill", {"data": str(tmp_path), **params})
        assert "\n" not in str(error.value)


def test_a_missing_backbone_is_answered_before_anything_expensive(run_pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    named = {"backbone": {"kind": "timm", "name": "convnext_xxlarge.clip_laion2b_soup", "weights": None, **WHOLE}}
    with pytest.raises(ValueError, match="are not in the hub cache"):
        run_pipeline("distill", {"data": str(tmp_path / "data"), "student": {"stage_two": named}})
    assert not (tmp_path / "data/03_primary").exists()
    assert not (tmp_path / "data/06_models/runs").exists()


def test_the_papers_backbone_is_the_default_of_the_real_models(run_pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    pd.DataFrame({"text": ["a cat"]}).to_parquet(tmp_path / "captions.parquet")
    for env in ("sd3_medium", "sd35_large"):
        with pytest.raises(ValueError, match=r"the backbone 'convnext_xxlarge\.clip_laion2b_soup' are not in"):
            run_pipeline("distill", {"data": str(tmp_path / "data"), "raw": str(tmp_path)}, env=env)


def test_missing_captions(kedro_run, raw):
    assert "shapes_captions.parquet does not exist" in kedro_run(f"raw={raw}")


def test_missing_teacher_component(kedro_run, tmp_path):
    shutil.copytree(PROJECT / "data/01_raw", tmp_path / "raw")
    shutil.rmtree(tmp_path / "raw/teacher/vae")
    assert "lacks the component 'vae'" in kedro_run(f"raw={tmp_path / 'raw'}")


def test_teacher_components_that_disagree(kedro_run, tmp_path):
    shutil.copytree(PROJECT / "data/01_raw", tmp_path / "raw")
    encoder = tmp_path / "raw/teacher/text_encoder"
    shutil.rmtree(encoder)
    source = json.loads((PROJECT / "data/01_raw/teacher/text_encoder/config.json").read_text())
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(**{**source, "projection_dim": 16})
    CLIPTextModelWithProjection(config).save_pretrained(encoder)
    error = kedro_run(f"raw={tmp_path / 'raw'}")
    assert "the pooled text width is 48 but transformer.pooled_projection_dim is 64" in error


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--pipeline=distil", "unknown pipeline 'distil'; did you mean 'distill'?"),
        ("--pipelines=stage_one,distil", "unknown pipeline 'distil'; did you mean 'distill'?"),
        ("--pipelines=what", "unknown pipeline 'what'; known: ablation, baselines, "),
        ("--nodes=compute_fidd", "unknown node 'compute_fidd'; did you mean 'compute_fid'?"),
        ("--from-nodes=compute_fidd", "unknown node 'compute_fidd'; did you mean 'compute_fid'?"),
        ("--to-nodes=student.match_distributions", "did you mean 'student.match_distribution'?"),
    ],
)
def test_unknown_pipelines_and_nodes(monkeypatch, option, message):
    monkeypatch.chdir(PROJECT)
    result = CliRunner().invoke(cli, ["run", option], obj=bootstrap_project(PROJECT))
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.count("\n") == 1


def test_a_run_without_the_name_of_a_pipeline_checks_parameters_too(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    arguments = ["run", "--env=test", "--to-nodes=prepare_prompts", f"--params=data={tmp_path}"]
    result = CliRunner().invoke(cli, arguments, obj=bootstrap_project(PROJECT))
    assert result.exit_code == 0, result.output
    assert list(tmp_path.rglob("*.parquet"))
