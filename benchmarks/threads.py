"""How OpenMP's threads should wait, on an idle machine and on a busy one: the teacher's forward and backward.

    python benchmarks/threads.py            # ends with one JSON line
    python benchmarks/threads.py --write    # docs/benchmarks/threads.md as well

Four ways are measured in processes of their own that take turns, once beside nothing and once beside two busy processes
per core: `brief` spins briefly and then sleeps (the project's default), `passive` sleeps at once, `openmp` is what
OpenMP does by itself, `one` has one thread. Ratios are a way's seconds over `brief`'s in the same round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import SD3Transformer2DModel

from onex_distill.models.prompts import PromptBatch
from onex_distill.models.teacher import TeacherFolder
from onex_distill.models.velocity import predict_velocity

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs/benchmarks/threads.md"
WAYS = {
    "brief": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "openmp": {},
    "one": {"OMP_NUM_THREADS": "1"},
}
BATCH, TOKENS = 32, 10
CORES = os.cpu_count() or 1


def step_seconds(steps: int) -> float:
    """Median seconds of a forward and backward of the embedded teacher on 32 rows, in this process."""
    transformer = TeacherFolder(path=ROOT / "data/01_raw/teacher").transformer.load().train()
    x, prompts = inputs(transformer, BATCH)
    seconds = []
    for _ in range(steps + 1):  # the first warms up
        began = time.perf_counter()
        predict_velocity(transformer, x, torch.full((BATCH,), 0.5), prompts).square().mean().backward()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def inputs(transformer: SD3Transformer2DModel, rows: int) -> tuple[torch.Tensor, PromptBatch]:
    """Noise and random embeddings of so many captions."""
    config, draws = transformer.config, torch.Generator().manual_seed(0)
    x = torch.randn(rows, config.in_channels, config.sample_size, config.sample_size, generator=draws)
    embeds = torch.randn(rows, 2 * TOKENS, config.joint_attention_dim, generator=draws)
    return x, PromptBatch(embeds, torch.randn(rows, config.pooled_projection_dim, generator=draws))


@contextmanager
def load(processes: int) -> "Iterator[list[subprocess.Popen[bytes]]]":
    """So many processes that do nothing but count."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield busy
    finally:
        for process in busy:
            process.kill()
            process.wait()


def measure(way: str, steps: int) -> float:
    """Seconds per step under one way of waiting, in a process of its own."""
    command = [sys.executable, __file__, "--one", "--steps", str(steps)]
    chosen = {name for variables in WAYS.values() for name in variables}
    environment = {name: value for name, value in os.environ.items() if name not in chosen} | WAYS[way]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)  # noqa: S603
    return float(done.stdout)


def compare(rounds: int, steps: int, busy: int) -> list[dict[str, float | str]]:
    """A row per machine state and way: median seconds, and the ratio to `brief` with its spread over rounds."""
    rows: list[dict[str, float | str]] = []
    for machine, processes in (("idle", 0), ("busy", busy)):
        with load(processes):
            taken = [{way: measure(way, steps) for way in WAYS} for _ in range(rounds)]
        for way in WAYS:
            ratios = [one[way] / one["brief"] for one in taken]
            seconds = statistics.median(one[way] for one in taken)
            spread = {"ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
            rounded = {name: round(value, 3) for name, value in spread.items()}
            rows.append({"machine": machine, "way": way, "seconds": round(seconds, 4), **rounded})
    return rows


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--busy", type=int, default=2 * CORES, help="processes beside it, when busy")
    parser.add_argument("--write", action="store_true", help=f"the table to {DOCUMENT.relative_to(ROOT)}")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(step_seconds(chosen.steps))
        return
    rows = compare(chosen.rounds, chosen.steps, chosen.busy)
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    print(table)
    if chosen.write:
        text = f"""# How threads wait

Written by `python benchmarks/threads.py --write` on {CORES} cores, torch {torch.__version__}: seconds of a forward and
backward of the embedded teacher on {BATCH} rows, {chosen.rounds} rounds in which the ways took turns; busy is beside
{chosen.busy} processes that do nothing but count. `brief` is the project's default: threads spin briefly
(`GOMP_SPINCOUNT=10000`) and then sleep; `passive` sleeps at once (`OMP_WAIT_POLICY=passive` alone), `openmp` is what
OpenMP does by itself, `one` has one thread. The ratio is to `brief`'s seconds in the same round, with its lowest and
highest."""
        DOCUMENT.write_text(f"{text}\n\n{table}\n")
    print(json.dumps({f"{row['machine']}_{row['way']}": row["ratio"] for row in rows}))


if __name__ == "__main__":
    main()
