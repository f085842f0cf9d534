"""Another machine's part in every job that the first one launches: ``python -m onex_distill.engine.join RUNS``.

``RUNS`` is the runs folder of the first machine (``data/06_models/runs``) on storage that both see. The command waits
for jobs, runs this machine's ranks of each, and ends with Ctrl-C.
"""

import argparse
import logging
import time
from pathlib import Path

from onex_distill.engine.job import read_job
from onex_distill.engine.launch import JOB_FILE, run_agent

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5


def join(runs: Path) -> None:
    """Wait for jobs below ``runs`` and take part in each until it is over. Returns never."""
    while True:
        for path in runs.rglob(JOB_FILE):
            take_part(path)
        time.sleep(POLL_SECONDS)


def take_part(path: Path) -> None:
    """This machine's ranks of one job. The first machine reports errors; here they are only logged."""
    try:
        job, _ = read_job(path)
        logger.info("Joining %s at %s.", job.folder.name, job.compute.rendezvous)
        run_agent(path)
    except FileNotFoundError:
        return  # over before we came
    except Exception as error:
        logger.warning("%s ended here with %s: %s", path.parent.name, type(error).__name__, error)
    while path.exists():
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="the first machine's runs folder, on shared storage")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    join(parser.parse_args().runs)
