"""Jobs made of several pipelines, which know nothing of each other."""

from kedro.pipeline import Pipeline

from onex_distill.pipelines import ablation, pareto, precompute
from onex_distill.pipelines.cache_cotraining import create_cotraining, create_export
from onex_distill.pipelines.evaluation import pipeline as scoring
from onex_distill.pipelines.shared import create_sampling_inputs, extract_node
from onex_distill.pipelines.stage_one import create_distribution_matching
from onex_distill.pipelines.stage_two import create_refinement

RULES = ("dmd", "dmd2", "tdm", "unguided")
METHODS = (*(f"{rule}_2" for rule in RULES), "sfd_4", "fractional_175")
LOSSES = {
    **{f"{rule}_stage_one": f"{rule}.stage_one_losses" for rule in RULES},
    "reference_stage_two": "reference.stage_two_losses",
    "fractional_175": "fractional_175.cotraining_losses",
}

ALL = scoring.Gathered("all_features", "all_samples", "all_costs", "all_losses")

DIALS = ("dial", "fractional_150", "fractional_183")


def create_baselines() -> Pipeline:
    """Stage one by other rules, sfd_4 (four steps, both stages) and fractional_1.75 (a narrower band).

    It needs the results of ``distill`` on disk, beside which it scores its own.
    """
    real_latents = {"dmd2": "reference_latents"}  # for its adversarial term
    rules = sum((create_distribution_matching(rule, real_latents.get(rule)) for rule in RULES), Pipeline([]))
    training = rules + create_refinement("reference") + create_cotraining("fractional_175")
    sampling = Pipeline(
        [
            *(scoring.sample_student_node(f"{rule}_2", f"{rule}.stage_one") for rule in RULES),
            scoring.sample_student_node("sfd_4", "reference.stage_two"),
            scoring.sample_fractional_node("fractional_175"),
        ]
    )
    gathering = scoring.create_gathering(METHODS, LOSSES, ALL, earlier=scoring.MAIN)
    return training + create_sampling_inputs() + sampling + gathering + scoring.create_scoring(ALL)


def create_ablation() -> Pipeline:
    """The ablation with all that it stands on; it needs nothing but the committed inputs."""
    teacher = Pipeline([scoring.decode_teacher_node(), extract_node("teacher")])
    graph = teacher + ablation.create_pipeline()
    prepared = precompute.create_pipeline()
    return prepared.to_outputs(*(graph.inputs() & prepared.all_outputs())) + graph


def create_pareto() -> Pipeline:
    """The dial and the specialised students, trained and measured; it needs the results of ``distill`` on disk."""
    training = sum((create_cotraining(name) for name in DIALS), Pipeline([]))
    return training + create_export("dial", "dial") + pareto.create_pipeline()
