import pytest
from pydantic import ValidationError

from onex_distill.distill.stage_one.params import ImportanceParams, StageOneParams


@pytest.mark.parametrize(
    "knots", [(), ((0.0, 1.0),), ((0.0, 1.0), (0.0, 2.0)), ((500.0, 1.0), (0.0, 1.0)), ((0.0, 1.0), (9.0, 0.0))]
)
def test_knots_that_are_no_density_are_refused(knots):
    with pytest.raises(ValidationError, match="needs two or more knots, rising in position, of positive density"):
        ImportanceParams(curve=knots, axis="u", smoothing=100.0)


def test_a_preset_is_its_knots():
    preset = ImportanceParams(curve="c", axis="u", smoothing=100.0)
    assert preset.knots == ((0.0, 0.6), (300.0, 1.3), (500.0, 0.05), (1000.0, 0.001))
    assert ImportanceParams(curve=preset.knots, axis="u", smoothing=100.0).knots == preset.knots


def test_a_run_without_a_student_update_is_refused(stage_one_params):
    with pytest.raises(ValidationError, match="fake_updates 5 leaves no student update in 4 steps; lower it"):
        StageOneParams(**{**dict(stage_one_params), "fake_updates": 5})
    with pytest.raises(ValidationError, match="names no number of steps"):
        StageOneParams(**{**dict(stage_one_params), "num_inference_steps": ()})


def test_the_latent_gan_needs_a_fake_score_of_its_own(stage_one_params):
    gan = {"student_weight": 0.1, "fake_score_weight": 0.1, "hidden": 4}
    with pytest.raises(ValidationError, match=r"latent_gan needs a fake score of its own, not .* shared_backbone"):
        StageOneParams(**{**dict(stage_one_params), "latent_gan": gan, "parametrization": "shared_backbone"})
