"""Micro-batches add up to the batch: in float64 to the last digits, whatever their size and the ranks."""

import pytest
import torch
from torch import nn

from onex_distill.engine.accumulation import accumulate, check_micro_batch, micro_batches
from onex_distill.engine.ranks import Ranks


class OneOf(Ranks):
    """One of several ranks, without a process of its own."""

    def __init__(self, index: int, count: int) -> None:
        self.index, self.count = index, count


def gradient(rows: torch.Tensor, size: int | None, ranks: int) -> tuple[torch.Tensor, list[dict[str, float]]]:
    """The gradient of mean (w x)^2 averaged over ranks, and the means of every rank."""
    weight = nn.Parameter(torch.full((), 1.5, dtype=torch.float64))
    means = []
    for index in range(ranks):
        rank = OneOf(index, ranks)
        mine = rows[rank.share(len(rows))]

        def backward(part: slice, share: float, mine: torch.Tensor = mine) -> dict[str, float]:
            loss = (weight * mine[part]).square().mean()
            (loss * share).backward()
            return {"loss": float(loss.detach()), "first": float(mine[part].mean())}

        means.append(accumulate(backward, len(rows), size, rank))
    return weight.grad / ranks, means


@pytest.mark.parametrize(
    ("ranks", "size"), [(1, None), (1, 1), (1, 4), (1, 5), (2, None), (2, 3), (2, 4), (3, 2), (4, 1)]
)
def test_gradients_and_means_are_the_whole_batchs(ranks, size):
    rows = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found, means = gradient(rows, size, ranks)
    assert float(found) == pytest.approx(float(2 * 1.5 * rows.square().mean()), rel=1e-12)
    assert sum(values["first"] for values in means) / ranks == pytest.approx(float(rows.mean()), rel=1e-12)
    assert sum(values["loss"] for values in means) / ranks == pytest.approx(float(2.25 * rows.square().mean()))


def test_one_micro_batch_changes_no_bit():
    values = torch.rand(7, generator=torch.Generator().manual_seed(2)).tolist()
    for value in values:
        assert accumulate(lambda rows, weight, value=value: {"v": value, "w": weight}, 3, None, OneOf(0, 1)) == {
            "v": value,
            "w": 1.0,
        }


def test_rows_are_counted_from_the_ranks_first():
    assert micro_batches(8, 2, OneOf(1, 2)) == [slice(0, 2), slice(2, 4)]
    assert micro_batches(3, None, OneOf(1, 2)) == [slice(0, 2)]
    assert micro_batches(3, None, OneOf(0, 2)) == [slice(0, 1)]


@pytest.mark.parametrize(("batch", "micro", "ranks"), [(8, 3, 1), (8, 4, 4), (6, 2, 2)])
def test_a_micro_batch_that_does_not_divide_is_refused(batch, micro, ranks):
    with pytest.raises(ValueError, match=f"micro_batch_size {micro} on {ranks} ranks .* batch_size {batch};") as error:
        check_micro_batch(batch, micro, ranks)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("batch", "micro", "ranks"), [(8, 2, 4), (8, None, 3), (6, 6, 1)])
def test_a_micro_batch_that_divides_is_accepted(batch, micro, ranks):
    check_micro_batch(batch, micro, ranks)
