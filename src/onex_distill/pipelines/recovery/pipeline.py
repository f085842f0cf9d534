"""students of distill -> trainings with every seed -> samples -> what compensation recovers."""

from kedro.pipeline import Node, Pipeline

from onex_distill.pipelines.recovery import nodes


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipeline=recovery``; it needs the results of ``distill`` on disk."""
    return Pipeline(
        [
            Node(
                nodes.train_recovery,
                [
                    "cotraining_start",
                    "teacher",
                    "recogniser",
                    "reference_stage_one",
                    "prompt_embeddings",
                    "reference_images",
                    "params:references",
                    "empty_prompt_embeddings",
                    "evaluation_plan",
                    "params:recovery",
                    "params:evaluation",
                    "params:compute",
                    "runs",
                ],
                "recovery_samples",
                name=nodes.NODE,
            ),
            Node(
                nodes.score_recovery,
                ["evaluator", "teacher_samples", "recovery_samples"],
                "recovery_table",
                name="score_recovery",
            ),
            Node(nodes.summarise_recovery, "recovery_table", "recovery_summary", name="summarise_recovery"),
            Node(nodes.plot_recovery, "recovery_table", "recovery_plot", name="plot_recovery"),
        ]
    )
