"""Where a job runs: processes, machines, precision and sharding."""

from typing import Literal, Self

from pydantic import NonNegativeInt, PositiveInt, model_validator

from onex_distill.parameters import Params

Sharding = Literal["none", "ddp", "fsdp2"]


class ComputeParams(Params):
    """The ranks of every training, precompute and sampling node.

    ``processes`` counts a machine's ranks (one a GPU), ``rendezvous`` is ``host:port`` of the first machine, and
    ``restarts`` how often the elastic agent starts the ranks again after one has died. ``sharding`` says where weights,
    gradients and optimizer state live: whole on every rank (``ddp``) or split over the ranks (``fsdp2``), from where
    ``cpu_offload`` moves them to host memory between uses. ``none`` is for one process. Raises pydantic's
    ValidationError for settings that contradict each other.
    """

    processes: PositiveInt
    machines: PositiveInt
    rendezvous: str
    restarts: NonNegativeInt
    device: Literal["auto", "cpu"]
    mixed_precision: Literal["fp32", "bf16"]
    sharding: Sharding
    cpu_offload: bool

    @property
    def ranks(self) -> int:
        """All processes of all machines."""
        return self.processes * self.machines

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.sharding == "none" and self.ranks > 1:
            raise ValueError(f"sharding none is for one process, not {self.ranks}; choose ddp or fsdp2")
        if self.cpu_offload and self.sharding != "fsdp2":
            raise ValueError(f"cpu_offload needs sharding fsdp2, not {self.sharding}; change one of the two")
        host, _, port = self.rendezvous.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"rendezvous {self.rendezvous!r} must be host:port of the first machine")
        return self
