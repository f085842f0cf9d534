"""students of distill -> trainings with every seed -> samples -> what compensation recovers."""

from kedro.pipeline import Pipeline

from onex_distill.pipelines.lazy import LazyModule, Node
from onex_distill.pipelines.shared import create_adversarial_inputs, create_sampling_inputs, extract_node

nodes = LazyModule("onex_distill.pipelines.recovery.nodes")
study = LazyModule("onex_distill.evaluation.studies.recovery")


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipelines=recovery``; it needs the results of ``distill`` on disk."""
    recovery = Pipeline(
        [
            Node(
                study.train_recovery,
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
                study.score_recovery,
                ["recovery_features", "teacher_features", "params:metrics", "params:confidence"],
                "recovery_table",
                name="score_recovery",
            ),
            Node(study.summarise_recovery, "recovery_table", "recovery_summary", name="summarise_recovery"),
            Node(nodes.plot_recovery, "recovery_table", "recovery_plot", name="plot_recovery"),
        ]
    )
    return create_sampling_inputs() + create_adversarial_inputs() + recovery
