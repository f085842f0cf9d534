"""One job's run: its folder, its ranks, what it is made from, and requests to stop it."""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from onex_distill.engine.ranks import Ranks

STOP_FILE = "stop"
EVENTS = "tensorboard"
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
        self._events: SummaryWriter | None = None

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

    @contextmanager
    def recording(self, done: int) -> Iterator[None]:
        """Write TensorBoard events on rank 0 inside the block; earlier events of step ``done`` and on are hidden."""
        if not self.ranks.is_first:
            yield
            return
        with SummaryWriter(str(self.folder / EVENTS), purge_step=done) as self._events:
            yield
        self._events = None

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Add the values of one step to the events that are being written."""
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def record_image(self, step: int, name: str, image: Tensor) -> None:
        """Add an image, RGB in [0, 1], (3, H, W), to the events that are being written."""
        if self._events is not None:
            self._events.add_image(name, image, step)

    def flush_events(self) -> None:
        """Wait until the events are in their file, before a checkpoint that will not write them again."""
        if self._events is not None:
            self._events.flush()

    def stop_requested(self) -> bool:
        """Whether any rank was signalled, the launcher left a stop file or died; the same answer on every rank."""
        orphaned = self.ranks.count > 1 and os.getppid() != self._parent
        mine = self._signalled or orphaned or (self.folder / STOP_FILE).exists()
        return self.ranks.total({"stop": float(mine)})["stop"] > 0

    def _request_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._signalled = True


def partial_result(folder: Path) -> Path:
    """The temporary name of a run's result."""
    return folder / ".partial-result"
