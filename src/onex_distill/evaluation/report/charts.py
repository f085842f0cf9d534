"""Charts as static SVG, drawn in the page's own colours: no script, a title and a description for screen readers."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 12, 44
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#b8860b",
    "#56b4e9",
    "#7f7f7f",
)  # told apart by colour-blind eyes


class Point(NamedTuple):
    """A mark with the ends of its interval, NaN where there is none."""

    label: str
    x: float
    y: float
    low: float
    high: float


class Axis(NamedTuple):
    """Ends in data and in pixels."""

    low: float
    high: float
    start: float
    stop: float

    def place(self, value: float) -> float:
        """Pixels."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """About five round numbers."""
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (factor * step) <= 5)
        first = math.ceil(self.low / step) * step
        return [first + number * step for number in range(int((self.high - first) / step + 1e-9) + 1)]


def scatter(
    points: Sequence[Point], x_title: str, y_title: str, alternative: str, rules: Sequence[tuple[str, float]] = ()
) -> str:
    """Marks with vertical error bars, numbered; the legend names the numbers. ``rules`` are named dashed levels.

    Args:
        points: Marks, with the ends of their error bars.
        x_title: The title of the horizontal axis.
        y_title: The title of the vertical axis.
        alternative: The text in place of the chart for those who cannot see it.
        rules: Names and heights of dashed levels.

    Returns:
        An SVG with its legend; empty without finite points.
    """
    known = [point for point in points if math.isfinite(point.x) and math.isfinite(point.y)]
    if not known:
        return ""
    levels = [(name, value) for name, value in rules if math.isfinite(value)]
    heights = [value for point in known for value in (point.y, point.low, point.high) if math.isfinite(value)]
    heights += [value for _, value in levels]
    x, y = _axis([point.x for point in known], LEFT, WIDTH - RIGHT), _axis(heights, HEIGHT - BOTTOM, TOP)
    marks, legend = [], []
    for name, value in levels:
        place = y.place(value)
        marks.append(
            f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>'
            f'<text x="{WIDTH - RIGHT}" y="{place - 4:.1f}" text-anchor="end">{escape(name)}</text>'
        )
    for number, point in enumerate(known, start=1):
        colour = COLOURS[(number - 1) % len(COLOURS)]
        left, top = x.place(point.x), y.place(point.y)
        if math.isfinite(point.low) and math.isfinite(point.high):
            marks.append(
                f'<line x1="{left:.1f}" x2="{left:.1f}" y1="{y.place(point.low):.1f}" y2="{y.place(point.high):.1f}" '
                f'stroke="{colour}" stroke-width="2"/>'
            )
        marks.append(
            f'<circle cx="{left:.1f}" cy="{top:.1f}" r="5" fill="{colour}"/>'
            f'<text x="{left + 8:.1f}" y="{top - 6:.1f}">{number}</text>'
        )
        legend.append((colour, f"{number} {point.label}"))
    return _figure([*_frame(x, y, x_title, y_title), *marks], legend, alternative)


def lines(
    series: Sequence[tuple[str, Sequence[float], Sequence[float]]], x_title: str, y_title: str, alternative: str
) -> str:
    """A line for every name with its x and y.

    Args:
        series: Name, x and y of every line.
        x_title: The title of the horizontal axis.
        y_title: The title of the vertical axis.
        alternative: The text in place of the chart for those who cannot see it.

    Returns:
        An SVG with its legend; empty without finite points.
    """
    finite = [(n, [(a, b) for a, b in zip(xs, ys, strict=True) if math.isfinite(b)]) for n, xs, ys in series]
    known = [(name, pairs) for name, pairs in finite if pairs]
    if not known:
        return ""
    x = _axis([a for _, pairs in known for a, _ in pairs], LEFT, WIDTH - RIGHT)
    y = _axis([b for _, pairs in known for _, b in pairs], HEIGHT - BOTTOM, TOP)
    marks, legend = [], []
    for number, (name, pairs) in enumerate(known):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x.place(a):.1f},{y.place(b):.1f}" for a, b in pairs)
        marks.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        legend.append((colour, name))
    return _figure([*_frame(x, y, x_title, y_title), *marks], legend, alternative)


def _axis(values: Sequence[float], start: float, stop: float) -> Axis:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    return Axis(low - margin, high + margin, start, stop)


def _frame(x: Axis, y: Axis, x_title: str, y_title: str) -> list[str]:
    parts = []
    for tick in x.ticks():
        place = x.place(tick)
        parts.append(f'<line class="rule" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{place:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:.4g}</text>')
    for tick in y.ticks():
        place = y.place(tick)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_title)}</text>'
    )
    parts.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(y_title)}</text>'
    )
    return parts


def _figure(parts: Sequence[str], legend: Sequence[tuple[str, str]], alternative: str) -> str:
    keys = "".join(
        f'<li><span class="key" style="background:{colour}"></span>{escape(name)}</li>' for colour, name in legend
    )
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(alternative, quote=True)}">'
        f'{"".join(parts)}</svg><figcaption>{escape(alternative)}<ul class="legend">{keys}</ul></figcaption></figure>'
    )
