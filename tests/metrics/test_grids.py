import numpy as np
import pytest
import torch

from onex_distill.metrics.grids import image_grid


def row(count, size, value=0.0):
    return torch.full((count, 3, size, size), value)


@pytest.mark.parametrize(
    ("rows", "columns", "size", "shown"),
    [(2, 3, 32, 96), (1, 4, 32, 96), (3, 2, 64, 64), (2, 2, 128, 128), (1, 2, 8, 96)],
)
def test_small_images_are_enlarged_and_every_image_has_a_border(rows, columns, size, shown):
    grid = image_grid([row(columns, size) for _ in range(rows)])
    assert grid.mode == "RGB"
    assert grid.size == (columns * (shown + 2) + 2, rows * (shown + 2) + 2)


def test_rows_are_cut_to_the_shortest():
    assert image_grid([row(5, 96), row(2, 96)]).size == (2 * 98 + 2, 2 * 98 + 2)


def test_each_entry_is_one_row():
    grid = np.asarray(image_grid([row(2, 96, 0.0), row(2, 96, 1.0)]))
    assert (grid[2:98, 2:98] == 0).all()
    assert (grid[100:196, 2:98] == 255).all()


def test_images_of_a_row_keep_their_order():
    images = torch.cat([row(1, 96, 0.0), row(1, 96, 1.0)])
    grid = np.asarray(image_grid([images]))
    assert (grid[2:98, 2:98] == 0).all()
    assert (grid[2:98, 100:196] == 255).all()


def test_enlarging_does_not_smooth():
    checkers = (torch.arange(32)[:, None] + torch.arange(32)) % 2
    images = checkers.float().expand(2, 3, 32, 32)
    picture = np.asarray(image_grid([images]))[2:98, 2:98, 0]
    assert set(np.unique(picture).tolist()) == {0, 255}
    assert np.array_equal(picture[::3, ::3], 255 * checkers.numpy())
