"""students of distill -> trainings with every seed -> samples -> what compensation recovers."""

from kedro.pipeline import Pipeline

from onex_distill.pipelines.evaluation.pipeline import create_inputs, extract_node
from onex_distill.pipelines.lazy import LazyModule, Node
from onex_distill.pipelines.stage_two import create_inputs as create_adversarial_inputs

nodes = LazyModule("onex_distill.pipelines.recovery.nodes")


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipelines=recovery``; it needs the results of ``distill`` on disk."""
    recovery = Pipeline(
        [
            Node(
                nodes.train_recovery,
                [
                    "cotraining_start",
                    "adversarial_inputs",
                    "sampling_inputs",
                    "evaluation_plan",
                    "params:recovery",
                    "params:compute",
                    "runs",
                ],
                "recovery_samples",
                name="train_recovery",
            ),
            extract_node("recovery"),
            Node(
                nodes.score_recovery,
                ["recovery_features", "teacher_features", "params:metrics", "params:confidence"],
                "recovery_table",
                name="score_recovery",
            ),
            Node(nodes.summarise_recovery, "recovery_table", "recovery_summary", name="summarise_recovery"),
            Node(nodes.plot_recovery, "recovery_table", "recovery_plot", name="plot_recovery"),
        ]
    )
    return create_inputs() + create_adversarial_inputs() + recovery
