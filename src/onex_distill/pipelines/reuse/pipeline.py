"""teacher and students -> reuse errors -> figure."""

from kedro.pipeline import Node, Pipeline

from onex_distill.pipelines.reuse.nodes import measure_reuse_error, plot_reuse_error


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipeline=reuse``; it needs the students of ``distill`` on disk."""
    return Pipeline(
        [
            Node(
                measure_reuse_error,
                [
                    "teacher",
                    "student_stage_one",
                    "student_stage_two",
                    "prompt_embeddings",
                    "evaluation_plan",
                    "params:reuse",
                ],
                "reuse_error_table",
                name="measure_reuse_error",
            ),
            Node(plot_reuse_error, "reuse_error_table", "reuse_error_plot", name="plot_reuse_error"),
        ]
    )
