"""How fast ``true_size.py``'s stage one and its sample are, by compilation, attention and order of work.

    python benchmarks/true_size_speed.py NAME FOLDER CONF DEVICE   # NAME is one of VARIANTS; ends with one JSON line

One call warms up, the median of three is reported. FLOPs are those of the variant that compiles nothing.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from onex_distill.distill.stage_one.trainer import StageOneTrainer
from onex_distill.engine.run import Run
from onex_distill.engine.speed import attention
from stage_one_step import published_update
from true_size_parts import Parts

TIMED = 3
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}  # dense bf16 FLOPs per second, as published


class Variant(NamedTuple):
    """What is timed, and how."""

    part: str
    compile: str
    attention: str
    order: str = "ours"


SETTINGS = (("none", "sdpa"), ("none", "flash"), ("none", "cudnn"), ("blocks", "sdpa"))
VARIANTS = {
    f"{part} {compiled} {attention}": Variant(part, compiled, attention)
    for part in ("stage_one", "sample")
    for compiled, attention in SETTINGS
} | {"stage_one published": Variant("stage_one", "none", "sdpa", "published")}


def time_variant(parts: Parts, variant: Variant) -> dict[str, Any]:
    """Seconds per update or image, images per second, FLOPs per call and their share of the device's peak."""
    rows, plain = _stage_one(parts, variant) if variant.part == "stage_one" else _sample(parts)
    flops = None

    def call(number: int) -> None:
        with attention(parts.compute.attention):
            plain(number)

    if variant.compile == "none":
        with FlopCounterMode(display=False) as counter:
            call(0)
        flops = float(counter.get_total_flops())
    else:
        call(0)
    seconds = statistics.median(_seconds(call, number + 1, parts.ranks.device) for number in range(TIMED))
    return {
        **variant._asdict(),
        "seconds": round(seconds, 4),
        "images_per_second": round(rows / seconds, 4),
        "tflops": flops and round(flops / 1e12, 4),
        "share_of_peak": share_of_peak(flops, seconds, parts.ranks.device),
    }


def share_of_peak(flops: float | None, seconds: float, device: torch.device) -> float | None:
    """FLOPs per second over the device's published peak in bf16; None for a device without one."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = next((value for model, value in PEAK.items() if model in name), None)
    return None if flops is None or peak is None else round(flops / seconds / peak, 4)


def _stage_one(parts: Parts, variant: Variant) -> tuple[int, Callable[[int], object]]:
    job = parts.stage_one_job()
    trainer = StageOneTrainer(job, Run(job.folder, {}, parts.ranks))

    def publish(step: int) -> None:
        with parts.ranks.autocast():
            published_update(trainer, step)

    return job.params.batch_size, trainer.update if variant.order == "ours" else publish


def _sample(parts: Parts) -> tuple[int, Callable[[int], object]]:
    def sample(number: int) -> None:
        job = parts.sampling_job(f"sample {number}")
        job.run(Run(job.folder, {}, parts.ranks))

    return 1, sample


def _seconds(call: Callable[[int], object], number: int, device: torch.device) -> float:
    synchronise = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronise()
    began = time.perf_counter()
    call(number)
    synchronise()
    return time.perf_counter() - began


if __name__ == "__main__":
    name, folder, conf, device = sys.argv[1:]
    chosen = VARIANTS[name]
    parts = Parts(Path(folder), conf, device, compile=chosen.compile, attention=chosen.attention)
    print(json.dumps(time_variant(parts, chosen)))
