import pytest
import torch

from onex_distill.engine.watching import SIGMA_BINS, by_sigma


def test_a_bins_mean_is_the_quotient_of_its_columns():
    values, sigma = torch.tensor([1.0, 3.0, 10.0]), torch.tensor([0.1, 0.2, 1.0])
    columns = by_sigma("gap", values, sigma)
    assert columns["gap_0"] / columns["gap_share_0"] == pytest.approx(2.0)
    assert columns[f"gap_{SIGMA_BINS - 1}"] / columns[f"gap_share_{SIGMA_BINS - 1}"] == pytest.approx(10.0)
    assert columns["gap_1"] == columns["gap_share_1"] == 0.0
    assert sum(columns[f"gap_{number}"] for number in range(SIGMA_BINS)) == pytest.approx(values.mean().item())
