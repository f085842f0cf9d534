"""The processes that train together: who am I, which rows are mine, and sums over all of them.

Every rank draws the same random numbers for the whole batch and works on its rows alone, so that the number of ranks
changes nothing but rounding.

Shapes: B rows of the whole batch.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import cached_property

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from onex_distill.engine.compute import ComputeParams


class Ranks:
    """This process among all of a job. With one process every method is the identity."""

    def __init__(self, compute: ComputeParams) -> None:
        on_cpu = compute.device == "cpu" or not torch.accelerator.is_available()
        state = PartialState(cpu=on_cpu, timeout=timedelta(minutes=compute.timeout))
        self.compute = compute
        self.index: int = state.process_index
        self.count: int = state.num_processes
        self.device = torch.device("cpu") if compute.device == "cpu" else state.device
        if self.count != compute.ranks:
            raise RuntimeError(f"{self.count} ranks were started, {compute.ranks} configured")

    @property
    def is_first(self) -> bool:
        """Whether this rank writes and reports."""
        return self.index == 0

    @property
    def is_sharded(self) -> bool:
        """Whether weights, gradients and optimizer state are split over the ranks."""
        return self.compute.is_sharded

    @cached_property
    def mesh(self) -> DeviceMesh:
        """The ranks over which weights are split, in one dimension, after one of machines where each has a copy."""
        if self.compute.sharding == "hsdp":
            shape = (self.compute.machines, self.compute.processes)
            return init_device_mesh(self.device.type, shape, mesh_dim_names=("copies", "shards"))
        return init_device_mesh(self.device.type, (self.count,))

    def share(self, total: int) -> slice:
        """This rank's rows of ``total``; shares differ by at most one. Raises ValueError if one is empty."""
        if total < self.count:
            raise ValueError(f"a batch of {total} cannot be split over {self.count} ranks; raise batch_size")
        return slice(self.index * total // self.count, (self.index + 1) * total // self.count)

    def weight(self, total: int) -> float:
        """What this rank's mean loss counts in the average over ranks, so that it is the mean over all rows."""
        rows = self.share(total)
        return (rows.stop - rows.start) * self.count / total

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision for forwards; weights stay as they are.

        Sharded weights are whole only between a block's gathering and its release. Autocast's cache would keep casts of
        them beyond that, and hand a forward with gradient what one without has cast, so that the gradient is lost;
        besides, they are gathered in bf16 already (``weights.place``), so that there is nothing to cast.
        """
        enabled = self.compute.mixed_precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled, cache_enabled=not self.is_sharded)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average over ranks what FSDP has not reduced already.

        One all-reduce per tensor after the backward, instead of DDP's reducer: a cached step leaves blocks without a
        gradient, the compensation is called from inside the transformer's hooks, and a generator update leaves
        gradients on the discriminator that are thrown away. Steps of many forwards hide nothing worth hiding here.
        """
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor)]
        pending = [dist.all_reduce(gradient, async_op=True) for gradient in gradients]
        for work, gradient in zip(pending, gradients, strict=True):
            if work is not None:
                work.wait()
            gradient.div_(self.count)

    def part(self, rows: int, means: Mapping[str, float], shared: Mapping[str, float]) -> dict[str, float]:
        """What this rank adds to ``total``: of means over its rows of ``rows``, and of values that all ranks share."""
        scaled = {name: value * self.weight(rows) / self.count for name, value in means.items()}
        return scaled | {name: value / self.count for name, value in shared.items()}

    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sums over ranks; the same on every rank. Keys and their order agree between ranks."""
        if self.count == 1:
            return dict(values)
        sums = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return dict(zip(values, sums.tolist(), strict=True))

    def gather(self, rows: Tensor) -> Tensor:
        """Rows (N, ...) of every rank, which were dealt out in turn, in their order: (count * N, ...)."""
        if self.count == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        dist.all_gather(parts, rows)
        return torch.stack(parts, 1).flatten(0, 1)

    def wait(self) -> None:
        """Until every rank is here."""
        if self.count > 1:
            dist.barrier()


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of a sharded one; every rank has to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
