"""Draw ShapesWorld scenes with anti-aliased edges, as tensors.

Shapes: B batch, H W image size; images are RGB in [0, 1], (B, 3, H, W).
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from onex_distill.shapes.world import BACKGROUNDS, COLOURS, IMAGE_SIZE, Attributes

SUPERSAMPLING = 4
QUADRANT_OFFSET = 5.0
POSITION_JITTER = 1.5
RADII = (6.0, 7.5, 9.0)
RADIUS_JITTER = 0.35
OUTLINE_WIDTH = 1.6
STRIPE_PERIOD = 4.0


def render(attributes: Attributes, generator: torch.Generator) -> Tensor:
    """Draw one image a scene, (B, 3, 32, 32) in [0, 1]; the generator jitters position, radius and stripe phase."""
    count = len(attributes["shape"])
    jitter = torch.rand(4, count, generator=generator) * 2 - 1
    x, y = _coordinates(attributes["position"], jitter[0], jitter[1])
    radius = torch.tensor(RADII)[attributes["size"]] + RADIUS_JITTER * jitter[2]
    distance = _signed_distance(attributes["shape"], x, y, radius[:, None, None])
    mask = _fill_mask(attributes["fill"], distance, y, jitter[3])
    foreground = torch.tensor(list(COLOURS.values()))[attributes["colour"]]
    background = torch.tensor(list(BACKGROUNDS.values()))[attributes["background"]]
    coverage = avg_pool2d(mask.float()[:, None], SUPERSAMPLING)
    return background[:, :, None, None] * (1 - coverage) + foreground[:, :, None, None] * coverage


def _coordinates(position: Tensor, jitter_x: Tensor, jitter_y: Tensor) -> tuple[Tensor, Tensor]:
    """Supersampled pixel coordinates relative to each shape's centre, each (B, H*s, W*s), in pixels."""
    grid = (torch.arange(IMAGE_SIZE * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - IMAGE_SIZE / 2
    centre_x = QUADRANT_OFFSET * (2.0 * (position % 2) - 1) + POSITION_JITTER * jitter_x
    centre_y = QUADRANT_OFFSET * (2.0 * (position // 2) - 1) + POSITION_JITTER * jitter_y
    x = (grid[None, None, :] - centre_x[:, None, None]).expand(-1, len(grid), -1)
    y = (grid[None, :, None] - centre_y[:, None, None]).expand(-1, -1, len(grid))
    return x, y


def _signed_distance(shape: Tensor, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Distance to the outline, negative inside. Sizes are chosen so that the four shapes look equally large."""
    circle = torch.sqrt(x**2 + y**2) - 0.95 * radius
    square = torch.maximum(x.abs(), y.abs()) - 0.85 * radius
    triangle = torch.maximum(0.894 * x.abs() - 0.447 * (y + radius), y - 0.75 * radius)
    arm, reach = 0.40 * radius, 1.0 * radius
    bar_x = torch.maximum(x.abs() - reach, y.abs() - arm)
    bar_y = torch.maximum(y.abs() - reach, x.abs() - arm)
    cross = torch.minimum(bar_x, bar_y)
    distances = torch.stack([circle, square, triangle, cross])
    return distances[shape, torch.arange(len(shape))]


def _fill_mask(fill: Tensor, distance: Tensor, y: Tensor, phase: Tensor) -> Tensor:
    """Which supersampled pixels carry the shape's colour, (B, H*s, W*s) bool."""
    inside = distance <= 0
    outline = inside & (distance > -OUTLINE_WIDTH)
    stripes = inside & (((y / STRIPE_PERIOD + phase[:, None, None]) % 1.0) < 0.5)
    masks = torch.stack([inside, outline, stripes])
    return masks[fill, torch.arange(len(fill))]
