"""dmd_2 (alpha = 1, uniform sigma), sfd_4 (four steps, both stages), fractional_1.75 (a narrower band)."""

from kedro.pipeline import Pipeline

from onex_distill.pipelines import evaluation
from onex_distill.pipelines.cache_cotraining import create_cotraining
from onex_distill.pipelines.evaluation import pipeline as scoring
from onex_distill.pipelines.stage_one import create_distribution_matching
from onex_distill.pipelines.stage_two import create_refinement

METHODS = ("dmd_2", "sfd_4", "fractional_175")
LOSSES = {
    "dmd_stage_one": "dmd_stage_one_losses",
    "reference_stage_two": "reference_stage_two_losses",
    "fractional_175": "fractional_175_cotraining_losses",
}


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipeline=baselines``; it needs the results of ``distill`` on disk."""
    training = (
        create_distribution_matching("dmd") + create_refinement("reference") + create_cotraining("fractional_175")
    )
    sampling = Pipeline(
        [
            scoring.sample_student_node("dmd_2", "dmd_stage_one"),
            scoring.sample_student_node("sfd_4", "reference_stage_two"),
            scoring.sample_fractional_node("fractional_175"),
        ]
    )
    methods, losses = (*scoring.METHODS, *METHODS), {**scoring.LOSSES, **LOSSES}
    return training + evaluation.create_evaluation(methods, losses, sampling)
