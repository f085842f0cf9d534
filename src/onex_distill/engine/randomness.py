"""Random numbers as a function of (seed, rank, step, purpose), never of how often a generator was called.

A resumed run therefore draws exactly what the uninterrupted one would have drawn.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_of(seed: int, step: int, purpose: str, rank: int = 0) -> int:
    """A seed below 2**63 for one purpose of one step of one rank.

    Args:
        seed: The run's seed.
        step: The number of the update.
        purpose: The name of what is drawn.
        rank: Left at 0 where all ranks draw the same.

    Returns:
        The first 63 bits of the SHA-256 of the four.
    """
    key = f"{seed}/{rank}/{step}/{purpose}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1


def generator(seed: int, step: int, purpose: str, rank: int = 0) -> torch.Generator:
    """A fresh CPU generator for one purpose of one step of one rank.

    Args:
        seed: The run's seed.
        step: The number of the update.
        purpose: The name of what is drawn.
        rank: Left at 0 where all ranks draw the same.

    Returns:
        A generator seeded by ``seed_of``.
    """
    return torch.Generator().manual_seed(seed_of(seed, step, purpose, rank))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initialise weights from ``seed`` inside the block, without touching the global generator outside it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
