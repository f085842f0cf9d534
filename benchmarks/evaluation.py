"""The table of an evaluation from shared features, against metric libraries called one by one on the same images.

The table has a row per method and one reference. Networks have random weights: what is timed are decoding, resizing and
passes, which do not depend on them. Inception and AlexNet are of the published sizes, transformers smaller.

    python benchmarks/evaluation.py [--prompts 6] [--images 4] [--size 768] [--width 384]
    python benchmarks/evaluation.py --write    # docs/benchmarks/evaluation.md as well
"""

import argparse
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

REFERENCE, METHODS = "teacher", ("student", "teacher_null")
SIZES = ("prompts", "images", "size", "width")
DOCUMENT = Path(__file__).resolve().parents[1] / "docs/benchmarks/evaluation.md"

TEMPLATE = """# The table of an evaluation

Written by `python benchmarks/evaluation.py --write`: {metrics} metrics of {methods} methods against one reference,
{prompts} prompts x {images} images per method of {size} x {size} pixels, on a CPU ({threads} threads).
Weights are random: Inception of {inception} size, AlexNet of its own, transformers of width {width}.

- `shared` is this project: every image is decoded once and passes each network once.
- `libraries` calls clean-fid, torch-fidelity, transformers and lpips, metric by metric; each reads the images anew.

{taken}

Processor seconds do not depend on what else runs on the machine, wall seconds do. Both load their networks in them.

## What both sides found

{values}

FD-infinity draws its subsets at random, each side its own.
"""


class Side(NamedTuple):
    """What one side took, and its table: metrics of methods."""

    processor_s: float
    wall_s: float
    peak_mib: float
    table: dict[str, dict[str, float]]


def main() -> None:
    """Print the time, memory and table of both sides, and write them if asked to; the last line is JSON."""
    options = _options()
    if options.side:
        _run_side(options)
        return
    from evaluation_inputs import write_images, write_networks

    with TemporaryDirectory() as folder:
        root = Path(folder)
        for number, name in enumerate((REFERENCE, *METHODS)):
            write_images(root / name, options.prompts * options.images, options.size, number)
        write_networks(root, options.width, options.inception)
        found = {side: _measure(side, root, options) for side in ("shared", "libraries")}
    text = document(found, options)
    print(text)
    if options.write:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(text)
    result = {
        "time_ratio": found["libraries"].processor_s / found["shared"].processor_s,
        "peak_memory_mib": found["shared"].peak_mib,
        "images": options.prompts * options.images * (1 + len(METHODS)),
    }
    print(json.dumps(result))


def document(found: dict[str, Side], options: argparse.Namespace) -> str:
    """What ``--write`` writes: what both sides took, then every value that both found."""
    shared, libraries = found["shared"], found["libraries"]
    taken = [
        [name, f"{side.processor_s:.1f}", f"{side.wall_s:.1f}", f"{side.peak_mib:.0f}"] for name, side in found.items()
    ]
    ratios = (libraries.processor_s / shared.processor_s, libraries.wall_s / shared.wall_s)
    taken.append(["libraries / shared", *(f"{ratio:.2f}" for ratio in ratios), ""])
    values = [
        [metric, *(f"{side.table[method][metric]:.6g}" for method in METHODS for side in found.values())]
        for metric in libraries.table[METHODS[0]]
    ]
    return TEMPLATE.format(
        metrics=len(values),
        methods=len(METHODS),
        threads=os.environ.get("OMP_NUM_THREADS", "all"),
        taken=_markdown(["side", "processor seconds", "wall seconds", "peak MiB"], taken),
        values=_markdown(["metric", *(f"{method}, {side}" for method in METHODS for side in found)], values),
        **{name: getattr(options, name) for name in (*SIZES, "inception")},
    )


def _markdown(heads: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--images", type=int, default=4, help="per prompt and method")
    parser.add_argument("--size", type=int, default=768, help="side of an image in pixels, 299 or more")
    parser.add_argument("--width", type=int, default=384, help="of the transformers, a multiple of 64")
    parser.add_argument("--inception", choices=("published", "small"), default="published", help="its size")
    parser.add_argument("--write", action="store_true", help="write the report as well")
    parser.add_argument("--report", type=Path, default=DOCUMENT, help="where to")
    parser.add_argument("--side", choices=("shared", "libraries"), help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(side: str, root: Path, options: argparse.Namespace) -> Side:
    """Times, peak MiB and table of one side, in a process of its own."""
    sizes = [f"--{name}={getattr(options, name)}" for name in SIZES]
    command = [sys.executable, __file__, *sizes, f"--side={side}", f"--root={root}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    return Side(*json.loads(done.stdout.splitlines()[-1]))


def _run_side(options: argparse.Namespace) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    captions = [f"a drawing of {number} shapes" for number in range(options.prompts) for _ in range(options.images)]
    with contextlib.redirect_stdout(io.StringIO()):
        if options.side == "shared":
            from evaluation_shared import build_table
        else:
            from evaluation_libraries import build_table
        processor, wall = time.process_time(), time.perf_counter()
        table = build_table(options.root, REFERENCE, METHODS, captions)
        taken = time.process_time() - processor, time.perf_counter() - wall
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(Side(*taken, memory, table)))


if __name__ == "__main__":
    main()
