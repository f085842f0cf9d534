"""Samplings of one scheduler, one after the other: a diffusers scheduler holds the step that its sampling is at."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from diffusers import SchedulerMixin


class _Turn:
    """Whose turn it is with one scheduler."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread: int | None = None


_ADDING = threading.Lock()
_TURNS: WeakKeyDictionary[SchedulerMixin, _Turn] = WeakKeyDictionary()


@contextmanager
def one_sampling_at_a_time(scheduler: SchedulerMixin) -> Iterator[None]:
    """Wait until no other thread samples with the scheduler, and keep it until the block ends.

    Raises:
        ValueError: For a sampling inside another of the same scheduler (from a callback), which would wait for ever.
    """
    with _ADDING:
        turn = _TURNS.setdefault(scheduler, _Turn())
    if turn.thread == threading.get_ident():
        raise ValueError(
            "this pipeline is in the middle of a call, and its scheduler has one state; give the inner call a pipeline "
            "of its own: from_pipe(pipeline, scheduler=type(pipeline.scheduler).from_config(pipeline.scheduler.config))"
        )
    with turn.lock:
        turn.thread = threading.get_ident()
        try:
            yield
        finally:
            turn.thread = None


def check_scheduler(scheduler: SchedulerMixin) -> None:
    """Raise ValueError for a scheduler that calls the network more than once per step: the cache counts calls."""
    if scheduler.order != 1:
        raise ValueError(
            f"{type(scheduler).__name__} calls the network {scheduler.order} times per step, which the block cache "
            "cannot follow; use FlowMatchEulerDiscreteScheduler, or load the student with compensation=None"
        )
