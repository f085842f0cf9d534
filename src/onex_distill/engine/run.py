"""One job's run: its folder, its ranks, what it is made from, and requests to stop it."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from onex_distill.engine.ranks import Ranks

STOP_FILE = "stop"
Identity = dict[str, str | int | float | bool | None]


class Run:
    """What a job is given to work with.

    ``folder`` holds its checkpoints, ``result`` what it makes (under a temporary name until the job is done), and
    ``identity`` the parameters and input hashes, by dotted names, that its checkpoints belong to.
    """

    def __init__(self, folder: Path, identity: Identity, ranks: Ranks) -> None:
        self.folder = folder
        self.identity = identity
        self.ranks = ranks
        self._signalled = False
        self._parent = os.getppid()

    @property
    def result(self) -> Path:
        """Where rank 0 writes what the job makes."""
        return partial_result(self.folder)

    @contextmanager
    def watching_signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C become requests to stop inside the block, so that a step is never cut in half."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._request_stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop_requested(self) -> bool:
        """Whether any rank was signalled, the launcher left a stop file or died; the same answer on every rank."""
        orphaned = self.ranks.count > 1 and os.getppid() != self._parent
        mine = self._signalled or orphaned or (self.folder / STOP_FILE).exists()
        return self.ranks.total({"stop": float(mine)})["stop"] > 0

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True


def partial_result(folder: Path) -> Path:
    """The temporary name of a run's result."""
    return folder / ".partial-result"
