"""The inference path of a student whose later steps reuse bands of blocks."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from onex_distill.cache.block_cache import BlockCache
from onex_distill.distill.stage_two.path import InferencePath
from onex_distill.engine.ranks import Ranks


class CachedPath(InferencePath):
    """The first step stores the residual of every band, and later ones reuse it through the compensation.

    ``cache`` is attached to the transformer.
    """

    def __init__(self, cache: BlockCache, levels: Tensor, ranks: Ranks) -> None:
        super().__init__(cache.transformer, levels, ranks)
        self.cache = cache

    def begin_step(self, step: int) -> None:
        """Tell the cache which step comes next."""
        self.cache.begin_step(step)

    @contextmanager
    def as_it_began(self) -> Iterator[None]:
        """Run every block inside, as if there were no cache."""
        with self.cache.during(None):
            yield
