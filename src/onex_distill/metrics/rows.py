"""What every metric asks of the rows that it reads.

Shapes: N images; rows (N, ...).
"""

from torch import Tensor


def check_rows(rows: Tensor, metric: str, at_least: int = 1) -> Tensor:
    """The same rows in float64. Raises ValueError for too few of them, and for values that are not finite."""
    if len(rows) < at_least:
        raise ValueError(f"{metric} needs at least {at_least} images and has {len(rows)}; score more images")
    broken = (~rows.reshape(len(rows), -1).isfinite()).any(1)
    if broken.any():
        first = int(broken.nonzero()[0])
        raise ValueError(
            f"{metric} got features that are not finite for {int(broken.sum())} of {len(rows)} images (the first is "
            f"image {first}); look at these images, then make their features again"
        )
    return rows.double()


def check_pair(rows: Tensor, reference: Tensor, metric: str, at_least: int = 1) -> tuple[Tensor, Tensor]:
    """Both sets in float64. Raises ValueError as ``check_rows`` does, and for features of different lengths.

    Args:
        rows: Features (N, D).
        reference: Features (M, D).
        metric: The metric's name, for messages.
        at_least: The fewest rows of a set.

    Returns:
        Both sets in float64.

    Raises:
        ValueError: A set is not as ``check_rows`` wants it, or features have different lengths.
    """
    checked = check_rows(rows, metric, at_least), check_rows(reference, metric, at_least)
    if rows.shape[1:] != reference.shape[1:]:
        raise ValueError(
            f"{metric} got features of {tuple(rows.shape[1:])} and {tuple(reference.shape[1:])}; both sets must come "
            "from the same network"
        )
    return checked
