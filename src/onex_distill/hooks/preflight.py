"""Checks a run before its first node."""

from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from onex_distill.terminal import silence_loading_bars


class PreflightHook:
    """What would stop a node of the run hours later stops it here, in one line."""

    @hook_impl(trylast=True)
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> None:
        """Raise ValueError for an input, a parameter or a limit that a selected node would fail of."""
        from onex_distill.pipelines.preflight import check_run  # torch stays out of commands that run nothing

        silence_loading_bars()
        check_run(pipeline, catalog)
