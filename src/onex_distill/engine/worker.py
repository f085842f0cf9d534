"""One rank of a job: ``python -m onex_distill.engine.worker JOB.json``, started by the elastic agent."""

import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

import torch.distributed as dist

from onex_distill.engine.job import execute, read_job
from onex_distill.engine.launch import is_hopeless, record_error
from onex_distill.engine.ranks import Ranks
from onex_distill.errors import USER_ERRORS, Interrupted
from onex_distill.terminal import console_handler

logger = logging.getLogger(__name__)


def main(path: Path) -> int:
    """Exit status 0 when the job is done, or when a restart would not mend what ended it."""
    if is_hopeless(path.parent):
        return 0
    job, identity = read_job(path)
    rank = int(os.environ["RANK"])
    logging.basicConfig(level=logging.WARNING if rank else logging.INFO, handlers=[console_handler()])
    try:
        execute(job, identity, Ranks(job.compute))
    except Interrupted as error:  # all ranks stop together; one tells
        if rank == 0:
            record_error(job.folder, rank, error)
    except Exception as error:
        record_error(job.folder, rank, error)
        if not isinstance(error, USER_ERRORS):
            logger.exception("Rank %d of %s failed.", rank, job.folder.name)
        return 1
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 0


def leave(status: int) -> NoReturn:
    """End the process without the interpreter's own end, in which gloo's threads may abort it.

    A thread that outlives the interpreter and frees a tensor asks for a GIL that is gone (pytorch pull request 179291).
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(main(Path(sys.argv[1])))
