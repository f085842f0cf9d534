"""What keeping freed memory is worth: the embedded teacher's sampling and training, with and without it.

    python benchmarks/memory.py            # ends with one JSON line
    python benchmarks/memory.py --write    # docs/benchmarks/memory.md as well

`kept` is the project's default (``onex_distill.process.keep_memory``), `returned` what the C library does by itself.
Processes of both take turns; ratios are `returned`'s seconds over `kept`'s in the same round.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from diffusers import SD3Transformer2DModel

from onex_distill.models.teacher import TeacherFolder
from onex_distill.models.velocity import predict_velocity
from onex_distill.process import MALLOPT
from threads import inputs

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs/benchmarks/memory.md"
WAYS = {"kept": {name: str(size) for name, (_, size) in MALLOPT.items()}, "returned": {}}
ROWS = {"sampling": 256, "training": 32}  # of a guided teacher's call in conf/base, and of an update


def measure(way: str, calls: int) -> dict[str, float]:
    """Milliseconds per row of both kinds of work and the process's peak in MiB, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in MALLOPT} | WAYS[way]
    command = [sys.executable, __file__, "--one", "--calls", str(calls)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)  # noqa: S603
    return dict(json.loads(done.stdout))


def work(calls: int) -> dict[str, float]:
    """Medians of so many calls, of which one more warms up, in this process."""
    transformer: SD3Transformer2DModel = TeacherFolder(path=ROOT / "data/01_raw/teacher").transformer.load()
    found = {}
    for kind, rows in ROWS.items():
        x, prompts = inputs(transformer, rows)
        seconds = []
        for _ in range(calls + 1):
            began = time.perf_counter()
            with torch.set_grad_enabled(kind == "training"):
                velocity = predict_velocity(transformer, x, torch.full((rows,), 0.5), prompts)
            if kind == "training":
                velocity.square().mean().backward()
            seconds.append(time.perf_counter() - began)
        found[kind] = 1000 * statistics.median(seconds[1:]) / rows
    return {**found, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def compare(rounds: int, calls: int) -> list[dict[str, float | str]]:
    """A row per kind of work: seconds of both ways, their ratio with its spread over rounds, and both peaks."""
    taken = [{way: measure(way, calls) for way in WAYS} for _ in range(rounds)]
    rows: list[dict[str, float | str]] = []
    for kind in ROWS:
        ratios = [one["returned"][kind] / one["kept"][kind] for one in taken]
        medians = {f"{way}_ms_per_row": statistics.median(one[way][kind] for one in taken) for way in WAYS}
        peaks = {f"{way}_peak_mib": statistics.median(one[way]["peak_mib"] for one in taken) for way in WAYS}
        spread = {"ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
        rows.append({"work": kind, **{name: round(value, 3) for name, value in {**medians, **spread, **peaks}.items()}})
    return rows


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=8)
    parser.add_argument("--write", action="store_true", help=f"the table to {DOCUMENT.relative_to(ROOT)}")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(work(chosen.calls)))
        return
    rows = compare(chosen.rounds, chosen.calls)
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    print(table)
    if chosen.write:
        text = f"""# Memory that is kept

Written by `python benchmarks/memory.py --write` on {torch.get_num_threads()} threads, torch {torch.__version__}:
milliseconds per row of the embedded teacher's forward of {ROWS["sampling"]} rows (sampling), and of its forward
and backward of {ROWS["training"]} (training), in {chosen.rounds} rounds in which both ways took turns. `kept` is
the project's default, in which glibc keeps up to a GiB of what tensors free; `returned` is what glibc does by itself.
The ratio is of `returned`'s time to `kept`'s in the same round, with its lowest and highest; peaks are of a process
that does both."""
        DOCUMENT.write_text(f"{text}\n\n{table}\n")
    print(json.dumps({str(row["work"]): row["ratio"] for row in rows}))


if __name__ == "__main__":
    main()
