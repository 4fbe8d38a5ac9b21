"""Lines over an axis as numbers that a template draws as SVG, so that the page's theme colours them."""

from __future__ import annotations

from typing import NamedTuple

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 12, 42
"""Pixels around the field in which the lines are."""


class Point(NamedTuple):
    """A place in the picture, and the numbers that it stands for."""

    x: float
    y: float
    text: str


class Tick(NamedTuple):
    """A place on an axis, in pixels, and its number."""

    at: float
    text: str


class Chart(NamedTuple):
    """All that a template needs: lines by name, ticks, and pixels."""

    title: str
    x_label: str
    lines: dict[str, list[Point]]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    mark: float | None = None
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def line_chart(
    title: str, x_label: str, lines: dict[str, list[tuple[float, float]]], *, mark: float | None = None,
    whole: bool = True,
) -> Chart:  # fmt: skip
    """A chart of lines by name, each a list of (x, y).

    Args: mark where an x is marked · whole whether x are whole numbers
    """
    from matplotlib.ticker import MaxNLocator

    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    x_ticks = MaxNLocator(7, integer=whole).tick_values(min(xs), max(xs))
    y_ticks = MaxNLocator(6).tick_values(min(ys), max(ys))
    low, high = min(xs), max(xs)

    def across(x: float) -> float:
        share = (x - low) / (high - low) if high > low else 0.5
        return round(LEFT + 8 + share * (WIDTH - RIGHT - LEFT - 16), 1)

    def down(y: float) -> float:
        return round(
            HEIGHT - BOTTOM - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - BOTTOM - TOP), 1
        )

    return Chart(
        title,
        x_label,
        {
            name: [Point(across(x), down(y), f"{x_label} {x:g}, {name}: {y:.4g}") for x, y in points]
            for name, points in lines.items()
        },
        [Tick(across(x), f"{x:g}") for x in x_ticks if low <= x <= high],
        [Tick(down(y), f"{y:g}") for y in y_ticks],
        None if mark is None else across(mark),
    )
