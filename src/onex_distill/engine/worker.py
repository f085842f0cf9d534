"""One rank of a job: ``python -m onex_distill.engine.worker JOB.json``, started by the elastic agent."""

import logging
import os
import sys
from pathlib import Path

import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from onex_distill.engine.job import execute, read_job
from onex_distill.engine.launch import ERROR_FILE, USER_ERRORS, record_error
from onex_distill.engine.ranks import Ranks
from onex_distill.errors import Interrupted


@record
def main(path: Path) -> int:
    """Exit status 0 when the job is done or has failed for a reason that a restart would not mend."""
    job, identity = read_job(path)
    first = os.environ["RANK"] == "0"
    logging.basicConfig(level=logging.INFO if first else logging.WARNING, format="%(levelname)s %(message)s")
    if (job.folder / ERROR_FILE).exists():
        return 0
    try:
        execute(job, identity, Ranks(job.compute))
    except tuple(USER_ERRORS.values()) as error:
        record_error(job.folder, int(os.environ["RANK"]), error)
        return int(not isinstance(error, Interrupted))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
