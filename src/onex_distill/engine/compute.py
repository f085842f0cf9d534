"""Where a job runs: processes, machines, precision and sharding."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from onex_distill.parameters import Params

MOST_MINUTES = 7 * 24 * 60

Sharding = Literal["none", "ddp", "fsdp2", "hsdp"]


class ComputeParams(Params):
    """The ranks of every training, precompute and sampling node.

    ``processes`` counts a machine's ranks (one per GPU), ``rendezvous`` is ``host:port`` of the first machine, and
    ``restarts`` how often the elastic agent starts the ranks again after one has died. ``sharding`` says where weights,
    gradients and optimizer state live: whole on every rank (``ddp``), split over the ranks (``fsdp2``) or over those of
    each machine (``hsdp``), from where ``cpu_offload`` moves them to host memory between uses. ``none`` is for one
    process. ``timeout`` is how many minutes a rank waits for the others, one of which may have much to write.
    ``compile`` and ``attention`` make the transformer's blocks faster (``engine.speed``). ``decoding`` is how samples
    are decoded: a batch at once, image by image (``sliced``, the same images), or in overlapping tiles as well
    (``tiled``, nearly the same, in the least memory). Raises pydantic's ValidationError for settings that contradict
    each other.
    """

    processes: PositiveInt
    machines: PositiveInt
    rendezvous: str
    restarts: NonNegativeInt
    timeout: float = Field(gt=0, le=MOST_MINUTES)
    device: Literal["auto", "cpu"]
    mixed_precision: Literal["fp32", "bf16"]
    sharding: Sharding
    cpu_offload: bool
    compile: Literal["none", "blocks"]
    attention: Literal["sdpa", "flash", "cudnn"]
    decoding: Literal["whole", "sliced", "tiled"]

    @property
    def ranks(self) -> int:
        """All processes of all machines."""
        return self.processes * self.machines

    @property
    def is_sharded(self) -> bool:
        """Whether weights, gradients and optimizer state are split over ranks."""
        return self.shards > 1

    @property
    def shards(self) -> int:
        """Into how many parts they are split."""
        return {"fsdp2": self.ranks, "hsdp": self.processes}.get(self.sharding, 1)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.sharding == "none" and self.ranks > 1:
            raise ValueError(f"sharding none is for one process, not {self.ranks}; choose ddp or fsdp2")
        if self.sharding == "hsdp" and 1 in (self.machines, self.processes):
            raise ValueError(
                f"sharding hsdp copies over machines what it splits within them, which {self.machines} machines of "
                f"{self.processes} processes do not need; choose fsdp2 or ddp"
            )
        if self.cpu_offload and self.sharding not in ("fsdp2", "hsdp"):
            raise ValueError(f"cpu_offload needs sharding fsdp2, not {self.sharding}; change one of the two")
        host, _, port = self.rendezvous.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"rendezvous {self.rendezvous!r} must be host:port of the first machine")
        return self
