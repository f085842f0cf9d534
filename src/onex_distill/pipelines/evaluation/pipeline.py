"""methods -> samples -> features -> one table per metric -> metrics table -> report."""

from typing import NamedTuple

from kedro.pipeline import Pipeline

from onex_distill.evaluation.families import FAMILIES, NAMES
from onex_distill.pipelines.lazy import LazyFunction, LazyModule, Node
from onex_distill.pipelines.shared import create_sampling_inputs, extract_node

nodes = LazyModule("onex_distill.pipelines.evaluation.nodes")
report = LazyModule("onex_distill.pipelines.evaluation.report")
methods = LazyModule("onex_distill.pipelines.evaluation.methods")

METHODS = ("teacher", "teacher_null", "teacher_alpha", "teacher_2", "stage_one_2", "stage_two_2", "fractional_167")
LOSSES = {
    "reference_stage_one": "reference.stage_one_losses",
    "student_stage_one": "student.stage_one_losses",
    "student_stage_two": "student.stage_two_losses",
    "fractional_167": "fractional_167.cotraining_losses",
}


class Gathered(NamedTuple):
    """Names of the datasets that hold all methods of a job."""

    features: str
    samples: str
    costs: str
    losses: str


MAIN = Gathered("gathered_features", "gathered_samples", "cost_table", "loss_table")


def sample_student_node(method: str, transformer: str) -> Node:
    """Sample a transformer that runs every block."""
    return _sampling_node(methods.sample_student, method, [transformer])


def sample_fractional_node(method: str) -> Node:
    """Sample a student with its block cache."""
    models = [f"{method}.student", f"{method}.compensation"]
    return _sampling_node(methods.sample_fractional, method, models)


def decode_teacher_node() -> Node:
    """Images of the precomputed teacher latents."""
    return Node(
        methods.decode_teacher,
        ["sampling_inputs", "teacher_latents", "params:teacher_sampling", "params:compute", "runs"],
        ["teacher_samples", "teacher_cost"],
        name="decode_teacher",
    )


def create_sampling() -> Pipeline:
    """Samples of the methods of the main job."""
    return Pipeline(
        [
            decode_teacher_node(),
            _sampling_node(methods.sample_null, "teacher_null", []),
            _sampling_node(methods.sample_teacher, "teacher_alpha", []),
            _sampling_node(methods.sample_teacher, "teacher_2", []),
            sample_student_node("stage_one_2", "student.stage_one"),
            sample_student_node("stage_two_2", "student.stage_two"),
            sample_fractional_node("fractional_167"),
        ]
    )


def _sampling_node(function: LazyFunction, method: str, inputs: list[str]) -> Node:
    name = f"sample_{method}"
    common = ["sampling_inputs", "evaluation_plan", f"params:methods.{method}", "params:compute", "runs"]
    return Node(function, [*inputs, *common], [f"{method}_samples", f"{method}_cost"], name=name)


def create_gathering(
    methods: tuple[str, ...], losses: dict[str, str], to: Gathered, earlier: Gathered | None = None
) -> Pipeline:
    """Features of every method, and all of them as one dataset each, after those of an earlier job.

    Args:
        methods: Names of methods.
        losses: Datasets of loss histories, by what the training is called.
        to: The datasets that are written.
        earlier: Those of an earlier job, which come first.

    Returns:
        The pipeline.
    """
    before = earlier._asdict() if earlier else {}
    parts: dict[str, tuple[LazyFunction, dict[str, str]]] = {
        "features": (nodes.gather_features, {method: f"{method}_features" for method in methods}),
        "samples": (nodes.gather_samples, {method: f"{method}_samples" for method in methods}),
        "costs": (nodes.collect_costs, {method: f"{method}_cost" for method in methods}),
        "losses": (nodes.collect_losses, losses),
    }
    gathering = [
        Node(
            function,
            {"earlier": before[kind], **inputs} if before else inputs,
            getattr(to, kind),
            name=f"gather_{kind}",
        )
        for kind, (function, inputs) in parts.items()
    ]
    return Pipeline([*(extract_node(method) for method in methods), *gathering])


def create_metrics(features: str) -> Pipeline:
    """One node per metric, the measurements of each family, and all of them."""
    graph = [
        Node(
            getattr(nodes, f"compute_{name}"),
            [features, f"params:metrics.{name}", "params:confidence"],
            f"{name}_measurements",
            name=f"compute_{name}",
        )
        for name in NAMES
    ]
    for family, names in FAMILIES.items():
        members = [f"{name}_measurements" for name in names]
        graph.append(Node(nodes.collect_measurements, members, f"{family}_measurements", name=f"collect_{family}"))
    parts = [f"{family}_measurements" for family in FAMILIES]
    return Pipeline([*graph, Node(nodes.collect_measurements, parts, "measurements", name="collect_measurements")])


def create_tables(gathered: Gathered) -> Pipeline:
    """The tables of all metrics, the pictures and the report."""
    return Pipeline(
        [
            Node(
                nodes.build_metrics_table,
                [gathered.costs, "measurements"],
                ["metrics_table", "metrics_parquet"],
                name="build_metrics_table",
            ),
            Node(
                nodes.compare_methods,
                ["measurements", "params:confidence"],
                "comparisons_table",
                name="compare_methods",
            ),
            Node(nodes.tabulate_prompts, ["measurements", "evaluation_plan"], "prompts_table", name="tabulate_prompts"),
            Node(report.plot_losses, gathered.losses, "loss_plot", name="plot_losses"),
            Node(report.plot_metrics, "metrics_table", "metrics_plot", name="plot_metrics"),
            Node(report.plot_intervals, "measurements", "intervals_plot", name="plot_intervals"),
            Node(
                report.draw_sample_grid, [gathered.samples, "params:evaluation"], "sample_grid", name="draw_sample_grid"
            ),
            Node(
                report.draw_extremes,
                [gathered.samples, "prompts_table", "params:evaluation"],
                "extremes_grid",
                name="draw_extremes",
            ),
            Node(
                report.write_markdown,
                ["metrics_table", "measurements", "params:report"],
                "metrics_markdown",
                name="write_markdown",
            ),
            Node(
                report.write_report,
                [
                    "metrics_table",
                    "measurements",
                    "comparisons_table",
                    gathered.losses,
                    "sample_grid",
                    "extremes_grid",
                    "parameters",
                ],
                "report",
                name="write_report",
            ),
        ]
    )


def create_scoring(gathered: Gathered) -> Pipeline:
    """Metrics, tables and report of all methods that are gathered."""
    return create_metrics(gathered.features) + create_tables(gathered)


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipelines=evaluation``."""
    return create_sampling_inputs() + create_sampling() + create_gathering(METHODS, LOSSES, MAIN) + create_scoring(MAIN)
