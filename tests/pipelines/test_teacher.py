"""The teacher pipeline on conf/test, and the main job on the teacher that it made."""

import json

import pytest
from diffusers import StableDiffusion3Pipeline

from onex_distill.shapes.networks import ShapesReader


@pytest.fixture(scope="module")
def built(run_pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    run_pipeline("teacher", {"data": str(folder), "raw": str(folder / "raw")})
    return folder


def test_the_folder_opens_with_plain_diffusers_and_samples(built):
    pipeline = StableDiffusion3Pipeline.from_pretrained(built / "raw/teacher")
    image = pipeline("a red circle", num_inference_steps=2, height=32, width=32, max_sequence_length=10).images[0]
    assert image.size == (32, 32)
    assert pipeline.scheduler.config.shift == 3


def test_latents_are_scaled_to_unit_variance_by_the_autoencoder(built):
    config = StableDiffusion3Pipeline.from_pretrained(built / "raw/teacher").vae.config
    assert config.scaling_factor > 0
    assert config.scaling_factor != pytest.approx(0.18215)


def test_acceptance_reports_shares(built):
    report = json.loads((built / "raw/teacher_acceptance.json").read_text())
    assert 0 <= report["guided"]["alignment"] <= 1
    assert 0 <= report["evaluator_accuracy"]["all_named"] <= 1
    assert ShapesReader.from_pretrained(built / "raw/evaluator").config.feature_dim == 64


def test_the_main_job_runs_on_it(built, run_pipeline, tmp_path):
    params = {"data": str(tmp_path), "raw": str(built / "raw")}
    bands = {"fractional_167": {"cotraining": {"candidates": [[[1, 3]]]}}}
    run_pipeline("distill", {**params, **bands}, to_nodes=["student.match_distribution", "fractional_167.check_band"])
    assert (tmp_path / "06_models/student_stage_one").is_dir()
