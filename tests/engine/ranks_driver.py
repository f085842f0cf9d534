"""One rank that does the jobs of the files it is given, one after the other."""

import sys
from pathlib import Path

import torch.distributed as dist

from onex_distill.engine.job import execute, read_job
from onex_distill.engine.ranks import Ranks

for path in sys.argv[1:]:
    job, identity = read_job(Path(path))
    execute(job, identity, Ranks(job.compute))
dist.destroy_process_group()
