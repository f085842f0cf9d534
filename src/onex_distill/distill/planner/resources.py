"""What is there, and the refusal of what is not enough."""

import shutil
from pathlib import Path

import psutil
import torch

from onex_distill.distill.planner.needs import Need
from onex_distill.engine.compute import ComputeParams

CONTEXT = 2**29  # bytes of CUDA's context, kernels and library workspaces, as drivers of these years show them
COLLECTIVES = 2**30  # and of NCCL's channels, where there are several ranks
PIECES = 0.05  # of the tensors: what the caching allocator holds and cannot fill


def on_accelerator(tensors: int, ranks: int) -> int:
    """Bytes of an accelerator that tensors of so many take, with what CUDA, NCCL and the allocator take beside them.

    The three are margins that were chosen, not measured.
    """
    return int(tensors * (1 + PIECES)) + CONTEXT + (COLLECTIVES if ranks > 1 else 0)


def uses_accelerator(compute: ComputeParams) -> bool:
    """Whether ranks run on an accelerator here."""
    return compute.device == "auto" and torch.cuda.is_available()


def available_memory(compute: ComputeParams) -> int:
    """Bytes that one rank may use: its accelerator's, or its share of the machine's free memory."""
    if uses_accelerator(compute):
        return int(torch.cuda.get_device_properties(0).total_memory)
    return int(psutil.virtual_memory().available) // compute.processes


def available_disk(folder: Path) -> int:
    """Free bytes where a folder is, or will be made."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_fit(name: str, need: Need, memory: int, disk: int, remedy: str) -> None:
    """Raise ValueError when a run cannot fit; ``remedy`` is what to do about memory.

    Args:
        name: The run's name, for messages.
        need: Bytes that the run takes.
        memory: Bytes per rank that are there.
        disk: Bytes that are free.
        remedy: What to do about memory.

    Raises:
        ValueError: Memory or disk is too small.
    """
    if need.memory > memory:
        raise ValueError(
            f"{name} needs {gib(need.memory):.1f} GiB of memory per rank and {gib(memory):.1f} are there; {remedy}"
        )
    if need.disk > disk:
        raise ValueError(
            f"the runs need {gib(need.disk):.1f} GiB of disk up to {name} and {gib(disk):.1f} are free; free space, or "
            "move the data with --params=data=FOLDER"
        )


def gib(size: int) -> float:
    """Bytes as GiB."""
    return size / 2**30
