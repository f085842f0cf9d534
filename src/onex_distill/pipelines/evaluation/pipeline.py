"""methods -> samples -> one table a metric -> metrics table -> report."""

from collections.abc import Callable

from kedro.pipeline import Node, Pipeline

from onex_distill.evaluation.sampler import Samples
from onex_distill.pipelines.evaluation import nodes, report, sampling
from onex_distill.pipelines.precompute import create_conditions

METHODS = ("teacher", "teacher_alpha", "teacher_2", "stage_one_2", "stage_two_2", "fractional_167")
LOSSES = {
    "reference_stage_one": "reference.stage_one_losses",
    "student_stage_one": "student.stage_one_losses",
    "student_stage_two": "student.stage_two_losses",
    "fractional_167": "fractional_167.cotraining_losses",
}


def sample_student_node(method: str, transformer: str) -> Node:
    """Sample a transformer that runs every block."""
    return _sampling_node(sampling.sample_student, method, [transformer])


def sample_fractional_node(method: str) -> Node:
    """Sample a student with its block cache."""
    models = [f"{method}.student", f"{method}.compensation"]
    return _sampling_node(sampling.sample_fractional, method, models)


def decode_teacher_node() -> Node:
    """Images of the precomputed teacher latents."""
    return Node(
        sampling.decode_teacher,
        ["sampling_inputs", "teacher_latents", "params:teacher_sampling", "params:compute", "runs"],
        ["teacher_samples", "teacher_cost"],
        name="decode_teacher",
    )


def create_inputs() -> Pipeline:
    """What all samplings share, as one dataset."""
    return create_conditions() + Pipeline(
        [
            Node(
                sampling.gather_sampling_inputs,
                ["conditions", "params:evaluation"],
                "sampling_inputs",
                name="gather_sampling_inputs",
            )
        ]
    )


def create_sampling() -> Pipeline:
    """Samples of the methods of the main job."""
    return Pipeline(
        [
            decode_teacher_node(),
            _sampling_node(sampling.sample_teacher, "teacher_alpha", []),
            _sampling_node(sampling.sample_teacher, "teacher_2", []),
            sample_student_node("stage_one_2", "student.stage_one"),
            sample_student_node("stage_two_2", "student.stage_two"),
            sample_fractional_node("fractional_167"),
        ]
    )


def _sampling_node(function: Callable[..., Samples], method: str, inputs: list[str]) -> Node:
    name = f"sample_{method}"
    common = ["sampling_inputs", "evaluation_plan", f"params:methods.{method}", "params:compute", "runs"]
    return Node(function, [*inputs, *common], [f"{method}_samples", f"{method}_cost"], name=name)


def create_scoring(methods: tuple[str, ...], losses: dict[str, str]) -> Pipeline:
    """One node a metric over the samples of all methods, the table and the report."""
    samples = {method: f"{method}_samples" for method in methods}
    evaluated = {"evaluator": "evaluator", **samples}
    return Pipeline(
        [
            Node(nodes.compute_fid, evaluated, "fid_table", name="compute_fid"),
            Node(nodes.compute_alignment, evaluated, "alignment_table", name="compute_alignment"),
            Node(nodes.compute_diversity, evaluated, "diversity_table", name="compute_diversity"),
            Node(
                nodes.compute_precision_recall,
                {**evaluated, "params": "params:evaluation"},
                "precision_recall_table",
                name="compute_precision_recall",
            ),
            Node(nodes.compute_entropy, evaluated, "entropy_table", name="compute_entropy"),
            Node(
                nodes.collect_costs,
                {method: f"{method}_cost" for method in methods},
                "cost_table",
                name="collect_costs",
            ),
            Node(
                nodes.build_metrics_table,
                [
                    "cost_table",
                    "fid_table",
                    "alignment_table",
                    "diversity_table",
                    "precision_recall_table",
                    "entropy_table",
                ],
                "metrics_table",
                name="build_metrics_table",
            ),
            Node(report.plot_losses, losses, "loss_plot", name="plot_losses"),
            Node(report.plot_metrics, "metrics_table", "metrics_plot", name="plot_metrics"),
            Node(
                report.draw_sample_grid,
                {**samples, "params": "params:evaluation"},
                "sample_grid",
                name="draw_sample_grid",
            ),
            Node(
                report.write_report,
                {
                    "metrics": "metrics_table",
                    "loss_plot": "loss_plot",
                    "metrics_plot": "metrics_plot",
                    "grid": "sample_grid",
                    "params": "params:evaluation",
                    **samples,
                },
                "report",
                name="write_report",
            ),
        ]
    )


def create_evaluation(methods: tuple[str, ...], losses: dict[str, str], sampling_nodes: Pipeline) -> Pipeline:
    """Sampling and scoring together."""
    return create_inputs() + sampling_nodes + create_scoring(methods, losses)


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipeline=evaluation``."""
    return create_evaluation(METHODS, LOSSES, create_sampling())
