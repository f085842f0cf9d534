"""folders and pipelines -> images -> features -> score table."""

from kedro.pipeline import Pipeline

from onex_distill.pipelines.lazy import LazyModule, Node
from onex_distill.pipelines.shared import extract_node

nodes = LazyModule("onex_distill.pipelines.score.nodes")


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipelines=score``; it needs nothing but what it is told to score."""
    return Pipeline(
        [
            Node(
                nodes.gather_score_images,
                ["params:score", "params:compute", "runs"],
                "score_samples",
                name="gather_score_images",
            ),
            extract_node("score"),
            Node(
                nodes.score_images,
                ["score_features", "params:score", "params:metrics", "params:confidence"],
                ["score_table", "score_comparisons", "score_measurements"],
                name="score_images",
            ),
        ]
    )
