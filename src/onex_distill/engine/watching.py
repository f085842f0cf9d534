"""What a training run writes down to be watched.

Shapes: B batch; values and sigma (B,).
"""

from torch import Tensor

SIGMA_BINS = 4  # of equal width over [0, 1]


def by_sigma(name: str, values: Tensor, sigma: Tensor) -> dict[str, float]:
    """Values by the level they were taken at: ``<name>_<bin>``, and the share of samples in each bin.

    A bin's value is its sum over B, so that it is finite when nothing fell into it and adds up over ranks and steps;
    the mean in a bin is the quotient of the two columns' sums.
    """
    bins = (sigma * SIGMA_BINS).long().clamp(0, SIGMA_BINS - 1)
    columns = {}
    for number in range(SIGMA_BINS):
        inside = (bins == number).to(values.dtype)
        columns[f"{name}_{number}"] = float((values * inside).mean())
        columns[f"{name}_share_{number}"] = float(inside.mean())
    return columns
