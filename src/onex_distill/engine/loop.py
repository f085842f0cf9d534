"""The one training loop: progress, history, checkpoints, resume. What a step does is the caller's business."""

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
from pydantic import PositiveInt
from tqdm import tqdm

from onex_distill.engine.checkpoint import Stateful, load_latest, save_checkpoint
from onex_distill.parameters import Params

logger = logging.getLogger(__name__)

Update = Callable[[int], dict[str, float]]


class LoopParams(Params):
    """Length and bookkeeping of a training run."""

    steps: PositiveInt
    checkpoint_every: PositiveInt
    log_every: PositiveInt


def train(
    update: Update, states: Mapping[str, Stateful], params: LoopParams, run_dir: Path, fingerprint: str
) -> pd.DataFrame:
    """Call ``update(step)`` for every step that the run directory has not seen yet; return the loss history.

    The history has a column ``step`` and one column a value that ``update`` returned. Raises FloatingPointError, with
    the last checkpoint intact, when a value is not finite; ValueError when the run directory belongs to another run.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    done, history = load_latest(run_dir, states, fingerprint)
    if done:
        logger.info("Resuming %s after step %d of %d.", run_dir.name, done, params.steps)
    with tqdm(total=params.steps, initial=done, desc=run_dir.name, unit="step", mininterval=1.0) as bar:
        for step in range(done, params.steps):
            values = update(step)
            _require_finite(values, step, run_dir)
            history.append({"step": step, **values})
            bar.update()
            if (step + 1) % params.log_every == 0:
                bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()})
                logger.info("%s step %d/%d %s", run_dir.name, step + 1, params.steps, bar.postfix)
            if (step + 1) % params.checkpoint_every == 0 or step + 1 == params.steps:
                save_checkpoint(run_dir, step + 1, states, history, fingerprint)
    return pd.DataFrame(history)


def _require_finite(values: dict[str, float], step: int, run_dir: Path) -> None:
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise FloatingPointError(
            f"{run_dir.name}: {', '.join(bad)} is not finite at step {step}; the last checkpoint in {run_dir} is kept. "
            "Lower the learning rate and run again"
        )
