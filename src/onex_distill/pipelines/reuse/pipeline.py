"""teacher and students -> reuse errors -> figure."""

from kedro.pipeline import Pipeline

from onex_distill.pipelines.lazy import LazyModule, Node
from onex_distill.pipelines.shared import create_sampling_inputs

nodes = LazyModule("onex_distill.pipelines.reuse.nodes")

STAGES = ("stage_one", "stage_two")


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipelines=reuse``; it needs the students of ``distill`` on disk."""
    shared = {"inputs": "sampling_inputs", "plan": "evaluation_plan", "params": "params:reuse"}
    reuse = Pipeline(
        [
            Node(
                nodes.measure_reuse_error,
                {**shared, **{f"student_{stage}": f"student.{stage}" for stage in STAGES}},
                "reuse_error_table",
                name="measure_reuse_error",
            ),
            Node(nodes.plot_reuse_error, "reuse_error_table", "reuse_error_plot", name="plot_reuse_error"),
        ]
    )
    return create_sampling_inputs() + reuse
