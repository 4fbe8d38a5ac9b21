"""Small pictures of pixels, and charts with axes, as parts of a drawing."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from svg import Drawing, number

ABOVE, BELOW = (76, 120, 216), (232, 135, 58)  # the colours a and b of extra.css
Points = Sequence[tuple[float, float]]


def pixels(d: Drawing, x: float, y: float, side: float, values: Any, title: str = "") -> None:
    """A matrix of values from 0, black, to 1, white, as a square picture of this side."""
    grey = np.rint(255 * np.clip(np.asarray(values), 0, 1)).astype(np.uint8)
    _place(d, x, y, side, Image.fromarray(grey), title)


def signed(d: Drawing, x: float, y: float, side: float, values: Any, title: str = "") -> None:
    """A matrix of values from -1, orange, through 0, clear, to 1, blue."""
    v = np.clip(np.asarray(values), -1, 1)
    colour = np.where(v[..., None] > 0, ABOVE, BELOW)
    alpha = np.rint(255 * np.abs(v))[..., None]
    image = np.concatenate([colour, alpha], axis=2).astype(np.uint8)
    _place(d, x, y, side, Image.fromarray(image, "RGBA"), title)


def _place(d: Drawing, x: float, y: float, side: float, image: Image.Image, title: str) -> None:
    data = io.BytesIO()
    image.save(data, "PNG")
    source = base64.b64encode(data.getvalue()).decode()
    d.parts.append(
        f'<image x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}" preserveAspectRatio="none" '
        f'style="image-rendering: pixelated" href="data:image/png;base64,{source}"/>'
    )
    d.box(x, y, side, side)
    if title:
        d.text(x + side / 2, y + side + 12, title, "small")


class Chart:
    """Axes from (left, top), ``wide`` and ``high`` pixels, for x and y in the given ranges."""

    def __init__(
        self, d: Drawing, left: float, top: float, wide: float, high: float,
        x: tuple[float, float], y: tuple[float, float],
    ) -> None:  # fmt: skip
        self.d, self.left, self.top, self.wide, self.high, self.x, self.y = d, left, top, wide, high, x, y
        d.line([(left, top), (left, top + high), (left + wide, top + high)], "axis frame")

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies in the drawing; outside the ranges, on their border."""
        across = (min(max(x, self.x[0]), self.x[1]) - self.x[0]) / (self.x[1] - self.x[0])
        up = (min(max(y, self.y[0]), self.y[1]) - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * self.wide, self.top + (1 - up) * self.high

    def line(self, points: Points, style: str) -> None:
        """A curve."""
        self.d.line([self.place(*p) for p in points], style)

    def dots(self, points: Points, style: str) -> None:
        """A dot at each point."""
        for x, y in (self.place(*p) for p in points):
            self.d.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="{style}"/>')

    def ticks(self, x: Sequence[float], y: Sequence[float], names: tuple[str, str]) -> None:
        """Numbers at the axes, and what they are."""
        for value in x:
            self.d.text(
                self.place(value, self.y[0])[0], self.top + self.high + 13, number(value), "small faint"
            )
        for value in y:
            self.d.text(self.left - 6, self.place(self.x[0], value)[1], number(value), "right small faint")
        self.d.text(self.left + self.wide / 2, self.top + self.high + 32, names[0], "small")
        self.d.text(self.left, self.top - 14, names[1], "small left")


def legend(d: Drawing, x: float, y: float, entries: Sequence[tuple[str, str]]) -> None:
    """Lines of these styles with their labels, one below the other."""
    for k, (style, label) in enumerate(entries):
        d.line([(x, y + 20 * k), (x + 28, y + 20 * k)], style)
        d.text(x + 36, y + 20 * k, label, "left small")
