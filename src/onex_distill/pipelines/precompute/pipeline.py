"""captions -> prompts -> embeddings -> plans of evaluation and of validation -> teacher latents on both."""

from kedro.pipeline import Pipeline

from onex_distill.pipelines.lazy import LazyFunction, LazyModule, Node
from onex_distill.pipelines.shared import create_conditions

nodes = LazyModule("onex_distill.pipelines.precompute.nodes")
planning = LazyModule("onex_distill.pipelines.precompute.planning")


def create_resource_plan() -> Pipeline:
    """What the trainings of the main job need, against what is there."""
    trainings = [
        _estimate(planning.estimate_stage_one, "reference.stage_one", "teacher"),
        _estimate(planning.estimate_stage_one, "student.stage_one", "teacher"),
        _estimate(planning.estimate_stage_two, "student.stage_two", "teacher", "recogniser"),
        _estimate(planning.estimate_cotraining, "fractional_167.cotraining", "teacher", "recogniser"),
    ]
    runs = ("reference.stage_one", "student.stage_one", "student.stage_two", "fractional_167.cotraining")
    needs = {"prompt_embeddings": "embeddings_need", **{run: need_of(run) for run in runs}}
    return Pipeline(
        [
            *trainings,
            Node(
                planning.estimate_embeddings,
                ["teacher", "prompts", "params:text", "params:compute"],
                "embeddings_need",
                name="estimate_embeddings",
            ),
            Node(
                planning.plan_resources,
                {"compute": "params:compute", "runs": "runs", **needs},
                "resource_plan",
                name="plan_resources",
            ),
        ]
    )


def create_embedding() -> Pipeline:
    """Captions to prompts and their embeddings."""
    return Pipeline(
        [
            Node(
                nodes.prepare_prompts,
                ["captions", "evaluation_captions", "params:prompt_counts", "params:evaluation_set"],
                "prompts",
                name="prepare_prompts",
            ),
            Node(
                nodes.embed_prompts,
                ["prompts", "teacher", "params:text", "params:compute", "runs", "resource_plan"],
                ["prompt_embeddings", "empty_prompt_embeddings"],
                name="embed_prompts",
            ),
        ]
    )


def create_teacher_samples() -> Pipeline:
    """The teacher's latents on the plans of evaluation and of validation."""
    settings = ["params:teacher_sampling", "params:compute", "runs"]
    return Pipeline(
        [
            Node(
                nodes.plan_evaluation,
                ["prompts", "params:evaluation_set"],
                "evaluation_plan",
                name="plan_evaluation",
            ),
            Node(
                nodes.plan_validation,
                ["prompts", "params:validation_set"],
                "validation_plan",
                name="plan_validation",
            ),
            Node(
                nodes.sample_teacher,
                ["conditions", "evaluation_plan", *settings],
                "teacher_latents",
                name="sample_teacher",
            ),
            Node(
                nodes.sample_teacher,
                ["conditions", "validation_plan", *settings],
                "validation_latents",
                name="sample_validation",
            ),
        ]
    )


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipelines=precompute``."""
    return create_resource_plan() + create_embedding() + create_conditions() + create_teacher_samples()


def _estimate(function: LazyFunction, training: str, *models: str) -> Node:
    """The need of one training."""
    inputs = [*models, "params:text", f"params:{training}", "params:compute"]
    return Node(function, inputs, need_of(training), name=f"estimate_{training.replace('.', '_')}")


def need_of(training: str) -> str:
    """The dataset of a training's need; without a dot, since kedro viz folds what is in a namespace into one."""
    return f"{training.replace('.', '_')}_need"
