"""Measure what trainings take: ``python memory_driver.py JOB.json ...`` prints peak bytes per job, one JSON list.

Resident memory, read every other millisecond while the trainer is built and makes two updates. Frozen weights that are
mapped from their file count: an accelerator would hold a copy.
"""

import gc
import json
import sys
import threading
import time
from pathlib import Path

import psutil
import torch

from onex_distill.distill.stage_one.trainer import StageOneJob, StageOneTrainer
from onex_distill.distill.stage_two.trainer import AdversarialTrainer
from onex_distill.engine.job import read_job
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.run import Run

PAUSE = 0.002


def resident() -> int:
    """Bytes of this process's pages."""
    return int(psutil.Process().memory_info().rss)


def measure(path: Path) -> int:
    """Peak bytes beyond what was there before, of one job."""
    job, _ = read_job(path)
    gc.collect()
    before, peak, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], resident())
            time.sleep(PAUSE)

    thread = threading.Thread(target=watch)
    thread.start()
    ranks = Ranks(job.compute)
    if isinstance(job, StageOneJob):
        trainer = StageOneTrainer(job, Run(job.folder, {}, ranks))
    else:
        trainer = AdversarialTrainer(job, ranks)
    for step in range(2):
        trainer.update(step)
    done.set()
    thread.join()
    return peak[0] - before


if __name__ == "__main__":
    torch.randn(64, 64) @ torch.randn(64, 64)  # what libraries take at their first use is no training's
    print(json.dumps([measure(Path(path)) for path in sys.argv[1:]]))
