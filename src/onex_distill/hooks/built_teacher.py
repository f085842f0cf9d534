"""Refuses to build the embedded teacher where pipelines read another one."""

from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline


class BuiltTeacherHook:
    """A toy teacher that is built beside a published one would only be taken for it."""

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> None:
        """Raise ValueError for nodes of the teacher pipeline when the teacher comes from the hub."""
        if not any("teacher" in node.tags for node in pipeline.nodes):
            return
        hub_model = getattr(catalog.get("teacher"), "hub_model", None)
        if hub_model is not None:
            raise ValueError(
                f"the teacher of this environment is {hub_model}; the teacher pipeline builds the embedded one, in "
                "conf/base or conf/test: leave --env out, or run `kedro run --pipelines=distill` for this one"
            )
