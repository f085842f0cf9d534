"""Tables of tensors made over ranks: each rank makes whole shards of the result, so that none is lost or repeated.

A shard holds one batch, whatever the number of ranks, so that the numbers do not depend on it. Shards that an
interrupted run has finished are kept.
"""

from collections.abc import Callable, Mapping

import pandas as pd
import torch
from torch import Tensor

from onex_distill.bars import Bar
from onex_distill.engine.run import Run
from onex_distill.errors import Interrupted
from onex_distill.storage.image_table import ImageWriter
from onex_distill.storage.tensor_table import TableWriter

MakeShard = Callable[[range], Mapping[str, Tensor]]


def write_table(
    run: Run,
    name: str,
    index: pd.DataFrame,
    rows_per_shard: int,
    make: MakeShard,
    kind: type[TableWriter] | type[ImageWriter] = TableWriter,
) -> None:
    """Write the shards of a table, shared out over the ranks in turn; rank 0 adds the index.

    Args:
        run: where, and which ranks.
        name: the folder of the table in the run's result.
        index: what is known of every row.
        rows_per_shard: rows that are made at once and share a file.
        make: the columns of some rows.
        kind: tensors, or images as lossless files.

    Raises:
        Interrupted: after a request to stop; finished shards are kept.
    """
    writer = kind(run.result / name, len(index), rows_per_shard)
    rounds = range(0, writer.shards, run.ranks.count)
    bar = Bar(run.folder.name, len(rounds), "batches", shown=run.ranks.is_first)
    with run.watching_signals(), torch.inference_mode(), bar:
        for first in rounds:
            number = first + run.ranks.index
            if number < writer.shards and not writer.has(number):
                writer.write(number, make(writer.rows_of(number)))
            if run.stop_requested() and first != rounds[-1]:
                raise Interrupted(f"{run.folder.name} was stopped; {first + 1} of {writer.shards} batches are kept")
            bar.advance()
    run.ranks.wait()
    if run.ranks.is_first:
        writer.finish(index)
