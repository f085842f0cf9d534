"""Real photographs, scans and drawings that installed packages ship."""

from functools import cache
from pathlib import Path

import skimage
from PIL import Image

NAMES = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "ihc.png",
    "logo.png",
    "motorcycle_left.png",
    "page.png",
    "rocket.jpg",
)


@cache
def photographs() -> dict[str, Image.Image]:
    """Name to RGB image; logo and page are a drawing and a page of print."""
    folder = Path(skimage.__file__).parent / "data"
    return {name: Image.open(folder / name).convert("RGB") for name in NAMES}
