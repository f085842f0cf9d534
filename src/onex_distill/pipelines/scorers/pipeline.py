"""scorers -> their files on the disk, and a table of which are there."""

from kedro.pipeline import Pipeline

from onex_distill.pipelines.lazy import LazyModule, Node

nodes = LazyModule("onex_distill.pipelines.scorers.nodes")


def create_fetch_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipelines=fetch_scorers``."""
    return Pipeline([Node(nodes.fetch_scorers, "params:scorers", "fetched_scorers_table", name="fetch_scorers")])


def create_convert_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipelines=convert_scorers``."""
    return Pipeline([Node(nodes.convert_scorers, "params:scorers", "converted_scorers_table", name="convert_scorers")])
