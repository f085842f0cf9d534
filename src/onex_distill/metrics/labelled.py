"""Grids of images with labels on rows and columns."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

SMALLEST = 96  # pixels; smaller images are enlarged without smoothing
LARGEST = 256
GAP = 4
FONT = 13
LINE = 16
PAPER, INK = (255, 255, 255), (20, 20, 20)


def labelled_grid(
    rows: Sequence[tuple[str, Sequence[Image.Image]]], columns: Sequence[str], below: Sequence[Sequence[str]] = ()
) -> Image.Image:
    """Rows of images with their labels.

    Args:
        rows: a label and as many images as there are columns, for every row.
        columns: labels above, wrapped; none where they are empty.
        below: what is written under every image, row by row.

    Returns:
        One RGB image on white.
    """
    font = ImageFont.load_default(FONT)
    cell = _cell(rows)
    letters = max(8, cell // 7)
    wrapped = [textwrap.wrap(label, letters)[:4] for label in columns]
    notes = [[textwrap.wrap(note, letters)[:4] for note in line] for line in below]
    top = LINE * max((len(lines) for lines in wrapped), default=0) + GAP
    left = max((int(font.getlength(line)) for label, _ in rows for line in label.split("\n")), default=0) + 3 * GAP
    under = LINE * max((len(lines) for line in notes for lines in line), default=0)
    width = left + len(columns) * (cell + GAP)
    sheet = Image.new("RGB", (width, top + len(rows) * (cell + under + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, lines in enumerate(wrapped):
        _write(draw, (left + column * (cell + GAP), 0), lines, font)
    for number, (label, images) in enumerate(rows):
        y = top + number * (cell + under + GAP)
        _write(draw, (GAP, y + cell // 2 - LINE // 2), label.split("\n"), font)
        for column, image in enumerate(images):
            x = left + column * (cell + GAP)
            sheet.paste(_fitted(image, cell), (x, y))
            if notes:
                _write(draw, (x, y + cell), notes[number][column], font)
    return sheet


def _cell(rows: Sequence[tuple[str, Sequence[Image.Image]]]) -> int:
    size = max(max(image.size) for _, images in rows for image in images)
    if size < SMALLEST:
        return size * -(-SMALLEST // size)
    return min(size, LARGEST)


def _fitted(image: Image.Image, cell: int) -> Image.Image:
    smooth = Image.Resampling.NEAREST if max(image.size) < cell else Image.Resampling.LANCZOS
    scale = cell / max(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), smooth)


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    lines: Sequence[str],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    for number, line in enumerate(lines):
        draw.text((place[0], place[1] + number * LINE), line, fill=INK, font=font)
