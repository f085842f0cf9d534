"""Tells what a run is doing, how long it takes, and where its results are."""

import logging
import time
from pathlib import Path
from typing import Any

import pandas as pd
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Node, Pipeline

from onex_distill.hooks.data import data_folder
from onex_distill.storage.records import RECORDS, read_records
from onex_distill.terminal import duration, log_to, tidy_console

logger = logging.getLogger(__name__)

SHOWN = ("report", "sample_grid", "student_pipeline")  # whose paths end a run
COLUMNS = ("nfe", "fid", "alignment", "diversity", "precision", "recall")
LOG_FILE = "log.txt"


class ProgressHook:
    """A line for each node before it runs, and the results after the last."""

    def __init__(self) -> None:
        self._data = Path()
        self._catalog: CatalogProtocol[Any, Any] | None = None
        self._file: logging.Handler | None = None
        self._waiting: list[str] = []
        self._expected: dict[str, float] = {}
        self._total, self._begun = 0, 0.0

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the data folder, and tidy the console before any other hook of a run writes to it."""
        tidy_console()
        self._data = data_folder(context)

    @hook_impl(trylast=True)
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]
    ) -> None:
        """Begin the log file, and say how long the nodes took when they last ran."""
        version = str(getattr(catalog, "_save_version", None) or run_params["run_id"])
        self._catalog, self._begun = catalog, time.monotonic()
        self._file = log_to(self._data / RECORDS / version / LOG_FILE)
        self._waiting, self._total = [node.name for node in pipeline.nodes], len(pipeline.nodes)
        self._expected = {
            name: node.seconds
            for record in read_records(self._data).values()
            if record.env == str(run_params["env"])
            for name, node in record.nodes.items()
        }
        logger.info(
            "%d nodes as %s; every line is in %s.", self._total, version, self._data / RECORDS / version / LOG_FILE
        )

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """One line: what runs, what it took the last time, what it makes, and the time that is left."""
        number = self._total - len(self._waiting) + 1
        if node.name in self._waiting:
            self._waiting.remove(node.name)
        what = (node.func.__doc__ or "").strip().splitlines()
        expected = self._expected.get(node.name)
        known = [self._expected.get(name) for name in (node.name, *self._waiting)]
        left = None if None in known else sum(seconds for seconds in known if seconds is not None)
        times = [f"about {duration(expected)}"] if expected is not None else []
        times += [f"{duration(left)} left in all"] if left is not None else []
        told = f" ({', '.join(times)})" if times else ""
        made = ", ".join(node.outputs[:3]) + (" ..." if len(node.outputs) > 3 else "")
        logger.info("[%d/%d] %s: %s -> %s%s", number, self._total, node.name, what[0] if what else "", made, told)

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline) -> None:
        """The metrics, what they were judged against, the time, and where to look."""
        made = pipeline.all_outputs()
        if self._catalog is not None and "metrics_table" in made:
            table: pd.DataFrame = self._catalog.load("metrics_table")
            columns = [name for name in COLUMNS if name in table.columns]
            shown = table.set_index("method")[columns].map(lambda value: f"{value:.4g}")
            logger.info("Metrics, judged against the images of the first row:\n%s", shown.to_string())
        for name in SHOWN:
            if self._catalog is not None and name in made:
                logger.info("%s: %s", name, self._catalog[name]._get_load_path())
        logger.info("Done in %s.", duration(time.monotonic() - self._begun))
        self._end()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """End the log file."""
        self._end()

    def _end(self) -> None:
        if self._file is not None:
            logging.getLogger().removeHandler(self._file)
            self._file.close()
            self._file = None
