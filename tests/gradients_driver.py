"""One rank that takes the first updates of the jobs of the files it is given, with weights held still.

Beside every job file it leaves ``gradients-<rank>.pt``: for every optimizer, in the order of first updates, the
gradient norm of every update, the names of the parameters that had a gradient in it, and those gradients.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from diffusers import SD3Transformer2DModel

from onex_distill.engine import loop
from onex_distill.engine.checkpoint import Stateful
from onex_distill.engine.job import Job, read_job
from onex_distill.engine.loop import LoopParams
from onex_distill.engine.optimisation import Stepper
from onex_distill.engine.ranks import Ranks, whole
from onex_distill.engine.run import Run

Updates = list[dict[str, Any]]


class Enough(Exception):
    """What ends a job after its first updates."""


def first_updates(job: Job, ranks: Ranks) -> list[Updates]:
    """Every update of every optimizer of a job: its norm, the names with a gradient, and all gradients as a vector.

    The vector holds the gradients of the whole batch, ordered by name, and is the same on every rank.
    """
    updates: dict[int, Updates] = {}
    reduce, take = Stepper.reduce, Stepper.take

    def held_still(stepper: Stepper, norm: float) -> None:
        with patch.object(stepper.optimizer, "step"), patch.object(stepper.scheduler, "step"):
            take(stepper, norm)

    def recorded(stepper: Stepper, *args: Any) -> float:
        norm = reduce(stepper, *args)
        named = sorted(stepper.named.items())
        found = {name: whole(parameter.grad).float().cpu() for name, parameter in named if parameter.grad is not None}
        vector = torch.cat([torch.zeros(0), *(gradient.flatten() for gradient in found.values())])
        updates.setdefault(id(stepper), []).append({"norm": norm, "names": list(found), "vector": vector})
        return norm

    held = patch.object(Stepper, "reduce", recorded), patch.object(Stepper, "take", held_still)
    with held[0], held[1], _exact_timesteps(), _without_a_loop():
        try:
            job.run(Run(job.folder, {}, ranks))
        except Enough:
            return list(updates.values())
    raise AssertionError("the job did not train")


@contextmanager
def _exact_timesteps() -> Iterator[None]:
    """Every timestep reaches the network in float32, whatever casts inputs on the way."""
    forward = SD3Transformer2DModel.forward

    @wraps(forward)
    def checked(transformer: SD3Transformer2DModel, *args: Any, **kwargs: Any) -> Any:
        assert kwargs["timestep"].dtype == torch.float32
        return forward(transformer, *args, **kwargs)

    with patch.object(SD3Transformer2DModel, "forward", checked):
        yield


@contextmanager
def _without_a_loop() -> Iterator[None]:
    """Take the updates of a training, and nothing else of it: no checkpoints, no results."""

    def train(update: Callable[[int], object], states: Mapping[str, Stateful], params: LoopParams, *_: Any) -> None:
        for step in range(params.steps):
            update(step)
        raise Enough

    callers = [module for module in list(sys.modules.values()) if getattr(module, "train", None) is loop.train]
    with ExitStack() as patches:
        for module in callers:
            patches.enter_context(patch.object(module, "train", train))
        yield


def main(paths: list[Path]) -> None:
    for path in paths:
        job, _ = read_job(path)
        ranks = Ranks(job.compute)
        torch.save(first_updates(job, ranks), path.parent / f"gradients-{ranks.index}.pt")
    dist.destroy_process_group()
