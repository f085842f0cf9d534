"""The real models at their true size: what every part of every configuration needs, and one update of each for real.

    python benchmarks/true_size.py --plan-only           # every configuration, from its files alone; no weights
    python benchmarks/true_size.py --model sd3_medium    # random weights, one update per part; ends with one JSON line
    python benchmarks/true_size.py --model sd3_medium --write   # docs/benchmarks/true_size.md as well

The parts run one after the other, each in a process of its own, through the trainers of the project, with the settings
of the configuration for one device: on a CPU at 256 px and one row, on a GPU at 1024 px and the published batch. A GPU
is timed too (``true_size_speed.py``): images per second and share of peak FLOPs, compiled or not, by attention kernel,
and in the published order of work.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from onex_distill.distill.planner import (
    decoding_need,
    encoding_need,
    gib,
    on_accelerator,
    sampling_need,
    stage_one_need,
    stage_two_need,
)
from onex_distill.distill.stage_one.params import StageOneParams
from onex_distill.distill.stage_two.params import AdversarialParams
from onex_distill.models.online import DTYPES
from onex_distill.models.teacher import TeacherFolder
from onex_distill.parameters import Params
from published_models import MODELS, PublishedModel, write_configs
from true_size_parts import PARTS, PROJECT, READER, TOKENS, build, conf_parameters
from true_size_speed import VARIANTS

CONFS: dict[str, PublishedModel] = {
    "sd3_medium": "sd3_medium",
    "sd35_medium": "sd35_medium",
    "sd35_large": "sd35_large",
    "sd3_medium_24gb": "sd3_medium",
    "sd35_large_80gb": "sd35_large",
}
ONE_DEVICE = {"sd3_medium": "sd3_medium_24gb", "sd35_medium": "sd35_medium", "sd35_large": "sd35_large_80gb"}
PIXELS = {"cpu": 256, "auto": 1024}
DOCUMENT = PROJECT / "docs/benchmarks/true_size.md"


def plan(conf: str, folder: Path) -> list[dict[str, Any]]:
    """What every part of a configuration needs per rank of an accelerator, beside tensors too."""
    parameters = conf_parameters(conf)
    compute = parameters["compute"]
    teacher = TeacherFolder(path=write_configs(CONFS[conf], folder / conf))
    one = partial(stage_one_need, teacher, TOKENS, compute=compute)
    two = partial(stage_two_need, teacher, READER, TOKENS, compute=compute)
    sampling = partial(sampling_need, teacher, TOKENS, compute=compute)
    rows = {
        name: parameters[name].batch_size for name in ("teacher_sampling", "references", "evaluation", "generation")
    }
    needs = {
        "sample_teacher": sampling(rows["teacher_sampling"], guided=True, decoded=False),
        "sample_references": sampling(rows["references"], guided=False, decoded=False),
        "decode_references": decoding_need(teacher, rows["references"], compute),
        "evaluation_samples": sampling(rows["evaluation"], guided=True, decoded=True),
    }
    text = parameters["text"]
    if text.encoding == "stored":
        needs["embed_prompts"] = encoding_need(teacher, DTYPES[text.dtype])
    for name, params in trainings(parameters):
        needs[name] = one(params) if isinstance(params, StageOneParams) else two(params)
    return [
        {
            "conf": conf,
            "part": name,
            "ranks": compute.ranks,
            "planned_gib": round(gib(on_accelerator(need.memory, compute.ranks)), 2),
        }
        for name, need in needs.items()
    ]


def trainings(group: Any, name: str = "") -> Iterator[tuple[str, StageOneParams | AdversarialParams]]:
    """Every training below a group of parameters, with its dotted name."""
    if isinstance(group, StageOneParams | AdversarialParams):
        yield name, group
    elif isinstance(group, dict | Params):
        for key, value in dict(group).items():
            yield from trainings(value, f"{name}.{key}" if name else key)


def measure(model: PublishedModel, parts: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One update or sample of every part, and on a GPU every variant's speed, each in a process of its own.

    Raises CalledProcessError when a part fails; a variant that fails has its error instead of figures.
    """
    device, results, speeds = "auto" if torch.cuda.is_available() else "cpu", [], []
    with tempfile.TemporaryDirectory() as folder:
        build(model, Path(folder), PIXELS[device], conf_parameters(ONE_DEVICE[model]))
        for part in parts:
            results.append(_in_process("true_size_parts.py", part, folder, ONE_DEVICE[model], device))
            print(json.dumps(results[-1]), flush=True)
        for name in VARIANTS if device == "auto" else ():
            try:
                speeds.append(_in_process("true_size_speed.py", name, folder, ONE_DEVICE[model], device))
            except subprocess.CalledProcessError as error:
                speeds.append({**VARIANTS[name]._asdict(), "seconds": f"failed with status {error.returncode}"})
            print(json.dumps(speeds[-1]), flush=True)
    return results, speeds


def _in_process(script: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown of rows, with the names of the first; what a row lacks is an empty cell."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row.get(name, "")) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def document(model: PublishedModel, rows: list[dict[str, Any]], speeds: list[dict[str, Any]]) -> str:
    """What ``--write`` writes: the rows of this device, and of the other kind that it was not measured."""
    on_gpu = torch.cuda.is_available()
    here = f"{torch.cuda.get_device_name()}, {PIXELS['auto']} px" if on_gpu else f"CPU, {PIXELS['cpu']} px, one row"
    missing = "No GPU was there: nothing is measured at 1024 px, neither seconds nor images per second."
    text = f"""Written by `python benchmarks/true_size.py --write`: random weights in the published shape, one update of
each training and one sample of 1.67 evaluations, each in a process of its own, by the settings of
`conf/{ONE_DEVICE[model]}`. `planned_gib` is the planner's count of tensors, `measured_gib` the most that the process
had in memory beyond what it had before (on a GPU: allocated)."""
    other = ["## Speed", table(speeds)] if on_gpu else ["## GPU, 1024 px", missing]
    return "\n\n".join([f"# {model} at its true size", text, f"## {here}", table(rows), *other]) + "\n"


def main() -> None:
    """Plan or measure, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--plan-only", action="store_true")
    what.add_argument("--model", choices=MODELS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--write", action="store_true", help=f"the table to {DOCUMENT.relative_to(PROJECT)}")
    arguments = parser.parse_args()
    if arguments.plan_only:
        with tempfile.TemporaryDirectory() as folder:
            rows = [row for conf in CONFS for row in plan(conf, Path(folder))]
        print(table(rows))
        print(json.dumps(rows))
        return
    rows, speeds = measure(arguments.model, arguments.parts)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    print(table(rows))
    if speeds:
        print(table(speeds))
    if arguments.write:
        DOCUMENT.write_text(document(arguments.model, rows, speeds))
    print(json.dumps({"model": arguments.model, "device": device, "parts": rows, "speeds": speeds}))


if __name__ == "__main__":
    main()
