"""One update in micro-batches: gradients add up to those of the whole batch, and values to its means.

``Stepper.apply`` reduces over ranks what micro-batches have left, once per update. Sharded gradients are reduced after
every micro-batch: kept until the last, they would stand whole on every rank.
"""

from collections.abc import Callable, Mapping

from onex_distill.engine.ranks import Ranks

Backward = Callable[[slice, float], Mapping[str, float]]


def check_micro_batch(batch_size: int, micro_batch_size: int | None, ranks: int) -> None:
    """Raise ValueError unless a batch goes round over so many ranks of so many rows at once; None takes all at once."""
    if micro_batch_size is not None and batch_size % (micro_batch_size * ranks):
        raise ValueError(
            f"micro_batch_size {micro_batch_size} on {ranks} ranks does not divide batch_size {batch_size}; choose one "
            f"that divides {batch_size} / {ranks} ranks, or null for all of a rank's rows at once"
        )


def micro_batches(total: int, size: int | None, ranks: Ranks) -> list[slice]:
    """Parts of this rank's rows of ``total``, counted from the first of them; all at once for a ``size`` of None."""
    share = ranks.share(total)
    count = share.stop - share.start
    size = size or count
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def accumulate(backward: Backward, total: int, size: int | None, ranks: Ranks) -> dict[str, float]:
    """Run the backward passes of one update, which is then to be applied; return means over this rank's rows.

    Args:
        backward: Given some of this rank's rows, counted from the first of them, and a weight: computes their mean
            loss, runs the backward pass of the loss times the weight, and returns means over those rows by name.
        total: Rows of the whole batch, over all ranks.
        size: Rows of a rank at once; None for all.
        ranks: The ranks that share the batch.

    Returns:
        The means by name. The gradients, averaged over ranks, are those of the mean loss over all rows.
    """
    parts = micro_batches(total, size, ranks)
    means: dict[str, float] = {}
    for rows in parts:
        count = rows.stop - rows.start
        for name, value in backward(rows, count * ranks.count / total).items():
            means[name] = means.get(name, 0.0) + value * (count / parts[-1].stop)
    return means
