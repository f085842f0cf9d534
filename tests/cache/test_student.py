import pytest

from onex_distill import load_student
from onex_distill.storage.model_folder import save_model


@pytest.fixture
def project(tmp_path, tiny_teacher):
    """A data folder with two exports."""
    for version in ("2026-01-01T00.00.00.000Z", "2026-01-02T00.00.00.000Z"):
        tiny_teacher.vae.register_to_config(scaling_factor=float(version[9]))
        save_model(tiny_teacher, tmp_path / "data/06_models/student_pipeline" / version / "student_pipeline")
    (tmp_path / "notebooks").mkdir()
    return tmp_path


@pytest.mark.parametrize("place", [".", "notebooks"])
def test_the_newest_export_is_found_from_below_the_project(project, monkeypatch, place):
    monkeypatch.chdir(project / place)
    assert load_student().vae.config.scaling_factor == 2.0


def test_a_data_folder_may_be_named(project, monkeypatch, tmp_path):
    monkeypatch.chdir("/")
    assert load_student(project / "data").vae.config.scaling_factor == 2.0


def test_no_export_is_answered_with_what_makes_one(tmp_path):
    with pytest.raises(ValueError, match=r"no dial_pipeline below .*06_models; run `kedro run --pipelines=pareto`"):
        load_student(tmp_path, "dial_pipeline")
    with pytest.raises(ValueError, match=r"no student_pipeline below .*; run `kedro run --pipelines=distill` first"):
        load_student(tmp_path)
