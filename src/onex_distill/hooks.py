"""Kedro hooks: refuse parameters that nobody reads, and forget the checkpoints of finished training runs."""

import logging
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from onex_distill.parameters import unknown_name

logger = logging.getLogger(__name__)

PATH_PARAMETERS = ("data", "raw")


class KnownParametersHook:
    """A mistyped ``--params`` name would be ignored without a word; this names it and the nearest known one."""

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any]) -> None:
        """Raise ValueError for a runtime parameter that no pipeline takes."""
        used = {name for pipeline in pipelines.values() for name in pipeline.inputs() if name.startswith("params:")}
        known = [*PATH_PARAMETERS, *sorted(name.removeprefix("params:") for name in used)]
        for path in _leaves(run_params["runtime_params"]):
            if not any(path == name or path.startswith(f"{name}.") for name in known):
                raise ValueError(unknown_name("parameter", path, known))


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
                shutil.rmtree(folder)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all leaves of nested mappings."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
