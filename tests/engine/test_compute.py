import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.ranks import Ranks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"processes": 2}, "sharding none is for one process, not 2; choose ddp or fsdp2"),
        ({"machines": 3}, "sharding none is for one process, not 3; choose ddp or fsdp2"),
        ({"sharding": "ddp", "cpu_offload": True}, "cpu_offload needs sharding fsdp2, not ddp; change one of the two"),
        (
            {"sharding": "hsdp", "processes": 4},
            "hsdp copies over machines .* 1 machines of 4 processes",
        ),
        ({"timeout": 0.0}, "timeout"),
        ({"timeout": 1e9}, "timeout"),
        ({"compile": "all"}, "compile"),
        ({"attention": "math"}, "attention"),
        ({"rendezvous": "localhost"}, "rendezvous 'localhost' must be host:port of the first machine"),
        ({"rendezvous": ":29500"}, "rendezvous ':29500' must be host:port of the first machine"),
        ({"rendezvous": "host:port"}, "rendezvous 'host:port' must be host:port of the first machine"),
        ({"device": "cuda"}, "device"),
        ({"mixed_precision": "fp16"}, "mixed_precision"),
        ({"processes": 0}, "processes"),
        ({"restarts": -1}, "restarts"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(compute, change, message):
    with pytest.raises(ValidationError, match=message):
        ComputeParams(**(dict(compute) | change))


def test_ranks_are_all_processes_of_all_machines(compute):
    assert ComputeParams(**(dict(compute) | {"processes": 4, "machines": 3, "sharding": "ddp"})).ranks == 12


@pytest.mark.parametrize(("sharding", "shards"), [("none", 1), ("ddp", 1), ("fsdp2", 6), ("hsdp", 2)])
def test_weights_are_split_over_all_ranks_or_those_of_a_machine(compute, sharding, shards):
    ranks = {"processes": 1 if sharding == "none" else 2, "machines": 1 if sharding == "none" else 3}
    params = ComputeParams(**(dict(compute) | ranks | {"sharding": sharding}))
    assert params.shards == shards
    assert params.is_sharded == (shards > 1)


def test_more_ranks_configured_than_started_are_an_error(compute):
    with pytest.raises(RuntimeError, match="1 ranks were started, 2 configured"):
        Ranks(ComputeParams(**(dict(compute) | {"processes": 2, "sharding": "ddp"})))


@pytest.fixture(scope="module")
def one_of(compute):
    """Rank ``index`` of ``count``, without the others."""

    def make(index: int, count: int) -> Ranks:
        rank = Ranks(compute)
        rank.index, rank.count = index, count
        return rank

    return make


@given(total=st.integers(1, 500), count=st.integers(1, 40))
def test_shares_cover_every_row_once_and_weigh_it_alike(one_of, total, count):
    if total < count:
        with pytest.raises(
            ValueError, match=f"a batch of {total} cannot be split over {count} ranks; raise batch_size"
        ):
            one_of(0, count).share(total)
        return
    ranks = [one_of(index, count) for index in range(count)]
    shares = [range(total)[rank.share(total)] for rank in ranks]
    assert [row for share in shares for row in share] == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    parts = [len(share) / total for share in shares]
    assert [rank.weight(total) / count for rank in ranks] == pytest.approx(parts)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), count=st.integers(1, 30))
def test_parts_add_up_to_the_mean_of_all_rows(one_of, values, count):
    total = len(values)
    ranks = [one_of(index, count) for index in range(min(count, total))]
    for rank in ranks:
        rank.count = len(ranks)
    parts = []
    for rank in ranks:
        mine = values[rank.share(total)]
        parts.append(rank.part(total, {"mean": sum(mine) / len(mine)}, {"shared": 3.5}))
    assert sum(part["mean"] for part in parts) == pytest.approx(sum(values) / total, abs=1e-6)
    assert sum(part["shared"] for part in parts) == pytest.approx(3.5)


def test_alone_every_method_is_the_identity(ranks):
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.full((2,), 3.0)
    ranks.average_gradients([parameter])
    assert parameter.grad.tolist() == [3.0, 3.0]
    assert ranks.total({"a": 1.5}) == {"a": 1.5}
    assert ranks.share(7) == slice(0, 7)
    assert ranks.weight(7) == 1
    assert ranks.is_first
    ranks.wait()


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_mixed_precision_is_for_forwards(compute, precision, dtype):
    layer = torch.nn.Linear(2, 2)
    with Ranks(compute.model_copy(update={"mixed_precision": precision})).autocast():
        assert layer(torch.ones(1, 2)).dtype == dtype
    assert layer.weight.dtype == torch.float32
