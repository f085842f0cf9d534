"""scorers -> their files on the disk, and a table of which are there."""

from kedro.pipeline import Node, Pipeline

from onex_distill.pipelines.scorers import nodes


def create_fetch_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipeline=fetch_scorers``."""
    return Pipeline([Node(nodes.fetch_scorers, "params:scorers", "fetched_scorers_table", name="fetch_scorers")])


def create_convert_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipeline=convert_scorers``."""
    return Pipeline([Node(nodes.convert_scorers, "params:scorers", "converted_scorers_table", name="convert_scorers")])
