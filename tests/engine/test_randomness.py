import pytest
import torch

from onex_distill.engine.randomness import generator


def draw(*args, **kwargs) -> torch.Tensor:
    return torch.rand(4, generator=generator(*args, **kwargs))


def test_the_same_inputs_draw_the_same():
    torch.manual_seed(1)
    first = draw(3, 7, "noise", rank=2)
    torch.manual_seed(2)
    torch.rand(5)
    assert torch.equal(draw(3, 7, "noise", rank=2), first)


@pytest.mark.parametrize(
    ("args", "rank"), [((4, 7, "noise"), 0), ((3, 8, "noise"), 0), ((3, 7, "captions"), 0), ((3, 7, "noise"), 1)]
)
def test_each_input_matters(args, rank):
    assert not torch.equal(draw(*args, rank=rank), draw(3, 7, "noise"))


def test_inputs_do_not_run_into_each_other():
    assert not torch.equal(draw(1, 11, "noise"), draw(11, 1, "noise"))
    assert not torch.equal(draw(1, 11, "noise"), draw(111, 1, "noise"))


def test_neighbouring_steps_are_uncorrelated():
    draws = torch.stack([torch.randn(200, generator=generator(0, step, "noise")) for step in range(20)])
    off_diagonal = torch.corrcoef(draws) - torch.eye(20)
    assert off_diagonal.abs().max() < 0.35
