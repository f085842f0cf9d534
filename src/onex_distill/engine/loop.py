"""The one training loop: progress, history, checkpoints, resume. What a step does is the caller's business."""

import logging
import math
from collections.abc import Callable, Mapping

import pandas as pd
import torch
from pydantic import PositiveInt

from onex_distill.bars import Bar
from onex_distill.engine.checkpoint import Stateful, load_latest, save_checkpoint
from onex_distill.engine.run import Run
from onex_distill.errors import Interrupted
from onex_distill.parameters import Params

logger = logging.getLogger(__name__)

SHOWN_ENDS = ("loss", "distance")
SHOWN = 4  # values beside the bar; the history has all
LOOKED_BACK = 200  # steps in which they are looked for
Update = Callable[[int], dict[str, float]]
Describe = Callable[[int], str]


class LoopParams(Params):
    """Length and bookkeeping of a training run; ``max_nonfinite_steps`` steps in a row without a finite loss end it."""

    steps: PositiveInt
    checkpoint_every: PositiveInt
    log_every: PositiveInt
    max_nonfinite_steps: PositiveInt


def train(
    update: Update, states: Mapping[str, Stateful], params: LoopParams, run: Run, describe: Describe
) -> pd.DataFrame:
    """Call ``update(step)`` for every step that the run has not seen yet.

    Args:
        update: Takes one step; returns this rank's shares of what is recorded, by name.
        states: What a checkpoint holds, by name.
        params: Length and bookkeeping.
        run: Where, and which ranks.
        describe: Names the seed and the rows of a step, for messages.

    Returns:
        The loss history: a column ``step`` and one column per value that ``update`` returned, summed over ranks.
        TensorBoard events in the run folder hold the same.

    Raises:
        Interrupted: A stop was requested; a checkpoint of the last step is there.
        FloatingPointError: Too many steps in a row were not finite; a checkpoint of the last good weights is there.
        MemoryError: A step does not fit.
        ValueError: The run folder belongs to another run.
    """
    done, history = load_latest(run, states)
    bar = Bar(run.folder.name, params.steps, "steps", done, run.ranks.is_first)
    if done and run.ranks.is_first:
        logger.info("Resuming %s after step %d of %d.", run.folder.name, done, params.steps)
    bad_steps = 0
    with run.watching_signals(), run.recording(done), bar:
        for step in range(done, params.steps):
            values = run.ranks.total(_guarded(update, step, run))
            history.append({"step": step, **values})
            run.record(step, values)
            bad_steps = 0 if _finite(values) else bad_steps + 1
            if bad_steps and run.ranks.is_first:
                logger.warning("%s: step %d is not finite and changed no weight (%s).", run.folder.name, step, values)
            logged = (step + 1) % params.log_every == 0 and run.ranks.is_first
            bar.advance(_shown(history) if logged else None)
            if logged:
                logger.debug("%s step %d/%d %s", run.folder.name, step + 1, params.steps, values)
            given_up, stopping = bad_steps == params.max_nonfinite_steps, run.stop_requested()
            last = step + 1 == params.steps
            if last or given_up or stopping or (step + 1) % params.checkpoint_every == 0:
                run.flush_events()
                good = step + 1 - bad_steps * given_up
                save_checkpoint(run, good, states, history[:good])
            if given_up:
                raise FloatingPointError(_not_finite(values, step, bad_steps, run, describe))
            if stopping and not last:
                raise Interrupted(f"{run.folder.name} was stopped and saved after step {step + 1} of {params.steps}")
    return pd.DataFrame(history)


def _shown(history: list[dict[str, float]]) -> dict[str, float]:
    """The newest of each loss and distance, for the bar; a distance is measured now and then."""
    newest: dict[str, float] = {}
    for values in history[-LOOKED_BACK:]:
        newest |= {name: value for name, value in values.items() if name.endswith(SHOWN_ENDS)}
    return {name.removesuffix("_loss").replace("_", " "): value for name, value in list(newest.items())[:SHOWN]}


def _guarded(update: Update, step: int, run: Run) -> dict[str, float]:
    """One step; running out of memory becomes one line that says what to lower."""
    try:
        return update(step)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise MemoryError(
            f"{run.folder.name} ran out of memory in step {step}: lower its batch_size, or set compute.sharding to "
            f"fsdp2 over more than {run.ranks.count} processes"
        ) from error


def _finite(values: Mapping[str, float]) -> bool:
    return all(math.isfinite(value) for value in values.values())


def _not_finite(values: Mapping[str, float], step: int, count: int, run: Run, describe: Describe) -> str:
    bad = ", ".join(name for name, value in values.items() if not math.isfinite(value))
    return (
        f"{run.folder.name}: {bad} not finite in {count} steps in a row, the last being {step} ({describe(step)}); the "
        f" weights of the last good step are kept in {run.folder}. Delete that folder and lower the learning rate"
    )
