"""Every pipeline of the project, also where a run has asked for a few."""

from kedro.framework.project import pipelines
from kedro.pipeline import Pipeline


def all_pipelines() -> dict[str, Pipeline]:
    """Name to pipeline, the default one left out."""
    pipelines.set_requested(None)
    return {name: pipeline for name, pipeline in pipelines.items() if name != "__default__"}


def made_by(dataset: str) -> str | None:
    """The pipeline to run for a dataset that is missing: the main job if that makes it; None for a raw input."""
    makers = {name: pipeline for name, pipeline in all_pipelines().items() if dataset in pipeline.all_outputs()}
    if "distill" in makers:
        return "distill"
    return min(makers, key=lambda name: len(makers[name].nodes), default=None)


def maker_of(dataset: str) -> str | None:
    """The node that makes a dataset; None for a raw input."""
    nodes = (node for pipeline in all_pipelines().values() for node in pipeline.nodes if dataset in node.outputs)
    return next((node.name for node in nodes), None)
