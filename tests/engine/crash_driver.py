"""Runs jobs in forked children, so that a kill costs milliseconds: imports are done once, before any fork.

Reads paths of job files from standard input. For each it forks, prints the child's number, waits, prints its status.
"""

import os
import sys
from pathlib import Path

from onex_distill.engine.job import read_job
from onex_distill.engine.launch import launch


def main() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            with Path(os.devnull).open("w") as null:
                os.dup2(null.fileno(), 1)
            try:
                launch(read_job(Path(line.strip()))[0])
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
