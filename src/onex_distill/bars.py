"""How far long work has come: a bar below the log lines in a terminal, a line now and then everywhere else."""

import logging
import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from onex_distill.terminal import console, duration

logger = logging.getLogger(__name__)

FIRST_LINE = 30.0  # seconds until the first line outside a terminal; every further pause is twice as long
REST = "ONEX_SECONDS_AFTER_NODE"  # what the nodes after this one will take; the environment takes it to ranks


def set_rest(seconds: float | None) -> None:
    """Say how long everything after the work that comes next will take, None where nobody knows."""
    if seconds is None:
        os.environ.pop(REST, None)
    else:
        os.environ[REST] = f"{seconds:.1f}"


class Bar:
    """Progress of ``total`` pieces of work, of which ``done`` were done before. Used as a context."""

    def __init__(self, name: str, total: int, unit: str, done: int = 0, shown: bool = True) -> None:
        self.name, self.total, self.unit, self.shown = name, total, unit, shown
        self._first, self._done, self._values = done, done, ""
        self._begun = time.monotonic()
        self._pause, self._due = FIRST_LINE, self._begun + FIRST_LINE
        self._live: Progress | None = None

    def __enter__(self) -> Self:
        """Show the bar, where there is a terminal to show it in."""
        if self.shown and console().is_interactive:
            text = TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True))
            columns = (BarColumn(12), MofNCompleteColumn(), text)
            self._live = Progress(*columns, console=console(), transient=True, refresh_per_second=4)
            self._task = self._live.add_task("", total=self.total, completed=self._done, text=self.unit)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar."""
        if self._live is not None:
            self._live.stop()

    def advance(self, values: Mapping[str, float] | None = None) -> None:
        """One more piece is done; ``values`` replace those that are shown."""
        self._done += 1
        if not self.shown:
            return
        if self._done == self._first + 1:  # what is prepared once belongs to the first piece, and to no pace
            self._begun = time.monotonic()
        if values is not None:
            self._values = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
        if self._live is not None:
            self._live.update(self._task, completed=self._done, text=self.text())
        elif time.monotonic() >= self._due and self._done < self.total:
            logger.info("%s %d/%d %s", self.name, self._done, self.total, self.text())
            self._pause *= 2
            self._due = time.monotonic() + self._pause

    def text(self) -> str:
        """The time that is left, for this and in all, once two pieces are done, and the newest values."""
        values = f"; {self._values}" if self._values else ""
        paced = self._done - self._first - 1
        if paced < 1:
            return self.unit + values
        left = (time.monotonic() - self._begun) / paced * (self.total - self._done)
        rest = os.environ.get(REST)
        in_all = f", {duration(left + float(rest))} in all" if rest else ""
        return f"{self.unit}, {duration(left)} left{in_all}{values}"
