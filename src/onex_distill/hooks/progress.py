"""Tells what a run is doing, how long it takes, and where its results are."""

import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Node, Pipeline

from onex_distill.bars import set_rest
from onex_distill.evaluation.report.summary import summary
from onex_distill.hooks.data import data_folder
from onex_distill.storage.records import RECORDS, read_records
from onex_distill.terminal import duration, log_to, tidy_console

logger = logging.getLogger(__name__)

SHOWN = ("report", "sample_grid", "student_pipeline", "contact_sheet", "generated_images")  # whose paths end a run
LOG_FILE = "log.txt"
QUICK = 2.0  # seconds; a node that needs less has no line of its own
GROUP = 3  # quick nodes in a row that are named together
DEFAULT_ENVIRONMENTS = ("None", "local", "base")
TYPICAL = Path(__file__).with_name("typical_seconds.json")  # of the nodes of conf/base on two CPU cores
TRUSTED = 30.0  # seconds until the pace of this run begins to outweigh that of the last


class ProgressHook:
    """A line for each node that takes time, and the results after the last."""

    def __init__(self) -> None:
        self._data = Path()
        self._catalog: CatalogProtocol[Any, Any] | None = None
        self._file: logging.Handler | None = None
        self._lock = threading.RLock()
        self._waiting: list[str] = []
        self._running: dict[str, tuple[float, str, threading.Timer]] = {}  # when it began, its line, what shows it
        self._quick: list[tuple[int, str]] = []
        self._expected: dict[str, float] = {}
        self._spent = self._foreseen = 0.0
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
        """Begin the log file, and find out how long the nodes took when they last ran."""
        version = str(run_params["run_id"])
        self._catalog, self._begun = catalog, time.monotonic()
        path = self._data / RECORDS / version / LOG_FILE
        self._file = log_to(path)
        self._waiting, self._total = [node.name for node in pipeline.nodes], len(pipeline.nodes)
        self._quick, self._running, self._spent, self._foreseen = [], {}, 0.0, 0.0
        env = str(run_params["env"])
        self._expected = json.loads(TYPICAL.read_text()) if env in DEFAULT_ENVIRONMENTS else {}
        for record in read_records(self._data).values():
            if record.env == env:
                self._expected |= {name: node.seconds for name, node in record.nodes.items()}
        left = self._left(self._waiting)
        told = "" if left is None else f", about {duration(left)}"
        logger.info("%d nodes as version %s%s; every line is in %s", self._total, version, told, path)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """One line for a node that takes time: what runs, what it makes, how long, and the time that is left."""
        with self._lock:
            number = self._total - len(self._waiting) + 1
            if node.name in self._waiting:
                self._waiting.remove(node.name)
            expected = self._expected.get(node.name)
            rest, in_all = self._left(self._waiting), self._left([node.name, *self._waiting])
            set_rest(rest)
            times = [f"about {duration(expected)}"] if expected is not None else []
            times += [f"{duration(in_all)} left in all"] if in_all is not None else []
            made = ", ".join(node.outputs[:2]) + (" ..." if len(node.outputs) > 2 else "")
            told = f" ({', '.join(times)})" if times else ""
            line = f"[{number}/{self._total}] {node.name}: {_what(node)} -> {made}{told}"
            timer = threading.Timer(QUICK, self._show, [node.name])
            timer.daemon = True
            self._running[node.name] = (time.monotonic(), line, timer)
            if expected is not None and expected >= QUICK:
                self._show(node.name)
            else:
                timer.start()

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """A node that was quick is in the log file alone, or in one line with others."""
        with self._lock:
            begun, line, timer = self._running.pop(node.name)
            timer.cancel()
            seconds = time.monotonic() - begun
            self._spent += seconds
            self._foreseen += self._expected.get(node.name, seconds)
            if line:
                logger.debug(line)
                self._quick.append((self._number(line), node.name))

    @hook_impl
    def on_node_error(self, node: Node) -> None:
        """Show which node it was."""
        self._show(node.name)

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline) -> None:
        """The metrics, what they were judged against, the time, and where to look."""
        self._show_quick()
        made = pipeline.all_outputs()
        if self._catalog is not None and "metrics_table" in made:
            from onex_distill.evaluation.params import ReportParams  # needs torch, which takes its time to start

            table: pd.DataFrame = self._catalog.load("metrics_table")
            logger.info(summary(table))
            if ReportParams.model_validate(self._catalog.load("params:report")).meaningless:
                logger.warning("These are sizes for tests: the numbers mean nothing.")
        if self._catalog is not None:
            for name, path in results(pipeline, self._catalog).items():
                logger.info("%s: %s", name, path)
        logger.info("Done in %s.", duration(time.monotonic() - self._begun))
        self._end()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """End the log file."""
        for _, _, timer in self._running.values():
            timer.cancel()
        self._end()

    def _show(self, name: str) -> None:
        with self._lock:
            begun, line, timer = self._running.get(name, (0.0, "", None))
            if line and timer is not None:
                self._show_quick()
                logger.info(line)
                self._running[name] = (begun, "", timer)

    def _show_quick(self) -> None:
        """One line for several quick nodes; one or two are not worth it."""
        if len(self._quick) >= GROUP:
            (first, first_name), (last, last_name) = self._quick[0], self._quick[-1]
            logger.info(
                "[%d-%d/%d] %d quick nodes, %s to %s", first, last, self._total, len(self._quick), first_name, last_name
            )
        self._quick = []

    def _left(self, names: list[str]) -> float | None:
        """Seconds that nodes will take, at the pace of this run; None when one has never been timed."""
        if not all(name in self._expected for name in names):
            return None
        pace = (self._spent + TRUSTED) / (self._foreseen + TRUSTED)
        return pace * sum(self._expected[name] for name in names)

    def _number(self, line: str) -> int:
        return int(line[1:].partition("/")[0])

    def _end(self) -> None:
        set_rest(None)
        if self._file is not None:
            logging.getLogger().removeHandler(self._file)
            self._file.close()
            self._file = None


def results(pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> dict[str, Any]:
    """Where to look after a run, by dataset: what people look at, or else some of the files that it ends with."""
    wanted = [name for name in SHOWN if name in pipeline.all_outputs()] or sorted(pipeline.outputs())
    kept = [name for name in wanted if hasattr(catalog[name], "_get_load_path")]
    return {name: catalog[name]._get_load_path() for name in kept[: len(SHOWN)]}


def _what(node: Node) -> str:
    """The first clause of what the node's function says of itself."""
    first = (node.func.__doc__ or "").strip().partition("\n")[0]
    clause = first.partition("; ")[0].partition(". ")[0].rstrip(".").replace("``", "")
    return clause[:1].lower() + clause[1:] if not clause[1:2].isupper() else clause
