"""features of the teacher -> variants of every metric -> choices."""

from kedro.pipeline import Node, Pipeline

from onex_distill.pipelines.calibrate.nodes import calibrate


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipelines=calibrate``; it needs the teacher's features on disk."""
    return Pipeline(
        [
            Node(
                calibrate,
                ["teacher_features", "params:calibration", "params:confidence"],
                ["calibration_table", "calibration_choices"],
                name="calibrate",
            )
        ]
    )
