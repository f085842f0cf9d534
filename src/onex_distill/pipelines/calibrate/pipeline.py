"""features of the teacher -> variants of every metric -> choices."""

from kedro.pipeline import Pipeline

from onex_distill.pipelines.lazy import LazyModule, Node

nodes = LazyModule("onex_distill.pipelines.calibrate.nodes")


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipelines=calibrate``; it needs the teacher's features on disk."""
    return Pipeline(
        [
            Node(
                nodes.calibrate,
                ["teacher_features", "params:calibration", "params:confidence"],
                ["calibration_table", "calibration_choices"],
                name="calibrate",
            )
        ]
    )
