"""Gives every node a run folder of its own, and forgets the checkpoints of finished training runs."""

import logging
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Node, Pipeline

from onex_distill.storage.files import remove_made

logger = logging.getLogger(__name__)

RUNS = "runs"  # the dataset


class RunFoldersHook:
    """A node that takes ``runs`` gets the folder of its own name below it, so that no node is told its name."""

    @hook_impl
    def before_node_run(self, node: Node, inputs: dict[str, Any]) -> dict[str, Any]:
        """Replace the folder of all runs by the node's own."""
        return {RUNS: inputs[RUNS] / node.name} if RUNS in inputs else {}


class FinishedRunsHook:
    """A training node keeps its run in a folder of its own name; a failed pipeline keeps them, to go on from there."""

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> None:
        """Remove the run folders of a finished pipeline's nodes; its results are versioned artefacts by now."""
        if RUNS not in pipeline.inputs():
            return
        runs = catalog.load(RUNS)
        for folder in (runs / node.name for node in pipeline.nodes):
            if folder.is_dir():
                logger.debug("Removing the checkpoints of the finished run %s.", folder.name)
                kept = remove_made(folder)
                if kept:
                    logger.warning("%s holds files that no run made, which stay: %s", folder, ", ".join(map(str, kept)))
