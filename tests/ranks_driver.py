"""One rank that does the jobs of the files it is given, one after the other."""

from pathlib import Path

import torch.distributed as dist

from onex_distill.engine.job import execute, read_job
from onex_distill.engine.ranks import Ranks


def main(paths: list[Path]) -> None:
    for path in paths:
        job, identity = read_job(path)
        execute(job, identity, Ranks(job.compute))
    dist.destroy_process_group()
