"""Forgets the checkpoints of finished training runs."""

import logging
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from onex_distill.storage.files import remove_made

logger = logging.getLogger(__name__)


class FinishedRunsHook:
    """A training node keeps its run in a folder of its own name; a failed pipeline keeps them, to go on from there."""

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> None:
        """Remove the run folders of a finished pipeline's nodes; its results are versioned artefacts by now."""
        if "runs" not in pipeline.inputs():
            return
        runs = catalog.load("runs")
        for folder in (runs / node.name for node in pipeline.nodes):
            if folder.is_dir():
                logger.info("Removing the checkpoints of the finished run %s.", folder.name)
                kept = remove_made(folder)
                if kept:
                    logger.warning("%s holds files that no run made, which stay: %s", folder, ", ".join(map(str, kept)))
