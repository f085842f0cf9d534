"""The table of an evaluation from shared features, against metric libraries called one by one on the same images.

The table has a row per method and one reference. Networks have random weights: what is timed are decoding, resizing and
passes, which do not depend on them. Inception and AlexNet are of the published sizes, transformers smaller.
Usage: python benchmarks/evaluation.py [--prompts 6] [--images 4] [--size 768] [--width 384]
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

REFERENCE, METHODS = "teacher", ("student", "teacher_null")
SIZES = ("prompts", "images", "size", "width")


def main() -> None:
    """Print the processor time, memory and table of both sides; the last line is JSON."""
    options = _options()
    if options.side:
        _run_side(options)
        return
    from evaluation_inputs import write_images, write_networks

    with TemporaryDirectory() as folder:
        root = Path(folder)
        for number, name in enumerate((REFERENCE, *METHODS)):
            write_images(root / name, options.prompts * options.images, options.size, number)
        write_networks(root, options.width)
        found = {side: _measure(side, root, options) for side in ("shared", "libraries")}
    for side, (seconds, memory, table) in found.items():
        print(f"{side}: {seconds:.1f} s, {memory:.0f} MiB")
        for method, row in table.items():
            print(f"  {method}: " + ", ".join(f"{name} {value:.4g}" for name, value in row.items()))
    result = {
        "time_ratio": found["libraries"][0] / found["shared"][0],
        "peak_memory_mib": found["shared"][1],
        "images": options.prompts * options.images * (1 + len(METHODS)),
    }
    print(json.dumps(result))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--images", type=int, default=4, help="per prompt and method")
    parser.add_argument("--size", type=int, default=768, help="side of an image in pixels, 299 or more")
    parser.add_argument("--width", type=int, default=384, help="of the transformers, a multiple of 64")
    parser.add_argument("--side", choices=("shared", "libraries"), help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(side: str, root: Path, options: argparse.Namespace) -> tuple[float, float, dict[str, dict[str, float]]]:
    """Processor seconds, peak MiB and table of one side, in a process of its own."""
    sizes = [f"--{name}={getattr(options, name)}" for name in SIZES]
    command = [sys.executable, __file__, *sizes, f"--side={side}", f"--root={root}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    seconds, memory, table = json.loads(done.stdout.splitlines()[-1])
    return seconds, memory, table


def _run_side(options: argparse.Namespace) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    captions = [f"a drawing of {number} shapes" for number in range(options.prompts) for _ in range(options.images)]
    with contextlib.redirect_stdout(io.StringIO()):
        if options.side == "shared":
            from evaluation_shared import build_table
        else:
            from evaluation_libraries import build_table
        start = time.process_time()  # what else runs on the machine does not count
        table = build_table(options.root, REFERENCE, METHODS, captions)
        seconds = time.process_time() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([seconds, memory, table]))


if __name__ == "__main__":
    main()
