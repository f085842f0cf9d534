import pytest
import torch

from onex_distill.metrics.cost import effective_nfe, flops_of


@pytest.mark.parametrize(
    ("steps", "guided", "layers", "cached", "expected"),
    [
        (28, True, 24, None, 56),
        (4, False, 24, None, 4),
        (1, False, 24, (2, 8), 1),
        (2, False, 24, (2, 8), 1.75),
        (2, False, 24, (2, 10), 1.67),
        (2, False, 38, (2, 12), 1.74),
        (4, False, 24, (2, 8), 3.25),
        (2, True, 24, (2, 8), 3.5),
        (2, False, 24, (0, 24), 1),
    ],
)
def test_effective_nfe_as_published(steps, guided, layers, cached, expected):
    assert effective_nfe(steps, guided, layers, cached) == pytest.approx(expected, abs=5e-3)


def test_only_the_length_of_the_band_counts():
    assert effective_nfe(2, False, 24, (0, 6)) == effective_nfe(2, False, 24, (18, 24))


def test_an_empty_band_costs_as_much_as_no_cache():
    assert effective_nfe(3, False, 24, (4, 4)) == effective_nfe(3, False, 24, None)


def test_the_title_is_the_ratio_of_two_counts():
    assert effective_nfe(28, True, 24, None) / effective_nfe(2, False, 24, (2, 10)) == pytest.approx(33.6, abs=0.1)


def test_a_matmul_costs_two_operations_a_product():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert flops_of(lambda: a @ b) == 2 * 3 * 5 * 7


def test_a_batched_matmul_counts_every_batch():
    a, b = torch.ones(4, 3, 5), torch.ones(4, 5, 7)
    assert flops_of(lambda: torch.bmm(a, b)) == 4 * 2 * 3 * 5 * 7


def test_the_call_is_made_once_and_all_of_it_is_counted():
    calls, a = [], torch.ones(6, 6)

    def twice():
        calls.append(1)
        return a @ a @ a

    assert flops_of(twice) == 2 * flops_of(lambda: a @ a)
    assert len(calls) == 1


def test_elementwise_work_is_not_counted():
    a = torch.ones(6, 6)
    assert flops_of(lambda: a + a) == 0
