"""Random numbers as a function of (seed, rank, step, purpose), never of how often a generator was called.

A resumed run therefore draws exactly what the uninterrupted one would have drawn.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def generator(seed: int, step: int, purpose: str, rank: int = 0) -> torch.Generator:
    """A fresh CPU generator for one purpose of one step of one rank."""
    key = f"{seed}/{rank}/{step}/{purpose}".encode()
    state = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(state)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initialise weights from ``seed`` inside the block, without touching the global generator outside it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
