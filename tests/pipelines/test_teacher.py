"""The teacher pipeline on conf/test: what it writes, what it leaves alone, and the main job on an adopted teacher."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from diffusers import StableDiffusion3Pipeline
from kedro.framework.startup import bootstrap_project

from onex_distill.cli import cli
from onex_distill.shapes.networks import ShapesReader
from onex_distill.storage.tensor_table import TensorTable
from support import PROJECT, newest


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A user's teacher and readers."""
    folder = tmp_path_factory.mktemp("raw")
    for name in ("teacher", "evaluator", "recogniser"):
        shutil.copytree(PROJECT / "data/01_raw" / name, folder / name)
    (folder / "teacher/notes of mine.txt").write_text("not to be lost")
    shutil.copyfile(PROJECT / "data/01_raw/shapes_captions.parquet", folder / "shapes_captions.parquet")
    return folder


@pytest.fixture(scope="module")
def built(run_pipeline, tmp_path_factory, raw):
    folder = tmp_path_factory.mktemp("teacher")
    before = contents(raw)
    run_pipeline("teacher", {"data": str(folder), "raw": str(raw)})
    assert contents(raw) == before
    return folder


@pytest.fixture
def adopt(built, tmp_path, raw, monkeypatch):
    """The command on a copy of the data and of the user's teacher."""
    shutil.copytree(built, tmp_path / "data")
    shutil.copytree(raw, tmp_path / "raw")
    monkeypatch.chdir(PROJECT)
    bootstrap_project(PROJECT)

    def run(*arguments: str, env: str = "test") -> str:
        params = f"--params=data={tmp_path / 'data'},raw={tmp_path / 'raw'}"
        result = CliRunner().invoke(cli, ["adopt-teacher", f"--env={env}", params, *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.output

    return run


def version(built: Path) -> str:
    return newest(built, "06_models/teacher/acceptance.json").parent.name


def test_the_folder_opens_with_plain_diffusers_and_samples(built):
    pipeline = StableDiffusion3Pipeline.from_pretrained(newest(built, "06_models/teacher/teacher"))
    image = pipeline("a red circle", num_inference_steps=2, height=32, width=32, max_sequence_length=10).images[0]
    assert image.size == (32, 32)
    assert pipeline.scheduler.config.shift == 3


def test_latents_are_scaled_to_unit_variance_by_the_autoencoder(built):
    config = StableDiffusion3Pipeline.from_pretrained(newest(built, "06_models/teacher/teacher")).vae.config
    latents = TensorTable(newest(built, "06_models/teacher/training_latents")).column("latent").double()
    scaled = (latents - config.shift_factor) * config.scaling_factor
    assert float(scaled.mean()) == pytest.approx(0, abs=1e-4)
    assert float(scaled.std()) == pytest.approx(1, abs=1e-4)


def test_acceptance_reports_shares(built):
    report = json.loads(newest(built, "06_models/teacher/acceptance.json").read_text())
    assert 0 <= report["guided"]["alignment"] <= 1
    assert 0 <= report["evaluator_accuracy"]["all_named"] <= 1
    reader = ShapesReader.from_pretrained(newest(built, "06_models/teacher/evaluator"))
    assert reader.config.feature_dim == 64


@pytest.mark.parametrize("env", ["sd3_medium", "sd35_large"])
@pytest.mark.parametrize("filters", [{}, {"node_names": ["train_autoencoder"]}])
def test_a_published_teacher_is_never_built(run_pipeline, tmp_path, env, filters):
    params = {"data": str(tmp_path / "data"), "raw": str(tmp_path / "raw")}
    with pytest.raises(
        ValueError, match=r"the teacher of this environment is stabilityai/.*; the teacher pipeline builds"
    ):
        run_pipeline("teacher", params, env=env, **filters)
    assert list(tmp_path.iterdir()) == []


def test_adopting_says_what_it_replaces_and_does_it_only_when_told(adopt, built, tmp_path, raw):
    output = adopt(version(built))
    assert f"{tmp_path}/raw/teacher is replaced by {tmp_path}/data/06_models/teacher/teacher" in output
    assert f"{tmp_path}/raw/teacher_acceptance.json becomes" in output
    assert "Nothing has been changed; add --yes" in output
    assert contents(tmp_path / "raw") == contents(raw)


def test_what_an_adopted_teacher_replaced_is_kept(adopt, built, tmp_path, raw):
    output = adopt(version(built), "--yes")
    kept = tmp_path / "data/06_models/teacher" / f"before-{version(built)}"
    assert f"What was replaced is in {kept}." in output
    assert contents(kept) == contents(raw)
    assert contents(tmp_path / "raw/teacher") == contents(newest(built, "06_models/teacher/teacher"))
    assert json.loads((tmp_path / "raw/teacher_acceptance.json").read_text())["guided"]
    assert "is there from an earlier adoption of this version; move it" in adopt(version(built), "--yes")


def test_the_main_job_runs_on_an_adopted_teacher(adopt, built, run_pipeline, tmp_path):
    adopt(version(built), "--yes")
    params = {"data": str(tmp_path / "new"), "raw": str(tmp_path / "raw")}
    bands = {"fractional_167": {"cotraining": {"candidates": [[[1, 3]]]}}}
    run_pipeline("distill", {**params, **bands}, to_nodes=["student.match_distribution"])
    assert (tmp_path / "new/06_models/student_stage_one").is_dir()


def test_versions_and_environments_that_cannot_be_adopted(adopt, tmp_path):
    assert "unknown version '2020-01-01T00.00.00.000Z'" in adopt("2020-01-01T00.00.00.000Z")
    assert "which a built one must not replace" in adopt("2020-01-01T00.00.00.000Z", env="sd3_medium")
    shutil.rmtree(tmp_path / "data")
    assert "holds no teacher; build one with `kedro run --pipelines=teacher`" in adopt("2020-01-01T00.00.00.000Z")
