"""Small drawings of number grids, boxes, arrows and text.  Their colours are classes in extra.css."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import numpy as np

CELL = 34
SMALLEST = 0.75
"""A drawing shrinks to this on a narrow window, where its words can still be read; then it scrolls."""
Classes = Mapping[tuple[int, int], str]


def number(value: float) -> str:
    """2.0 -> 2, 0.25 -> 0.25, -1.0 -> −1."""
    return f"{value:.3g}".replace("-", "−")


class Drawing:
    """A list of shapes, in pixels.  The drawing grows with them."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.width = self.height = 0.0

    def _grow(self, x: float, y: float) -> None:
        self.width, self.height = max(self.width, x), max(self.height, y)

    def text(self, x: float, y: float, words: str, style: str = "") -> None:
        """Words centred at (x, y); with the style "left" they begin there, with "right" they end there."""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" class="{style}">{escape(words)}</text>')
        length = 7.2 * len(words)
        self._grow(x + (length if "left" in style else 0 if "right" in style else length / 2), y + 10)

    def box(self, x: float, y: float, w: float, h: float, style: str = "", words: str = "") -> None:
        """A rectangle with words in its middle."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="2" class="cell {style}"/>'
        )
        self._grow(x + w, y + h)
        if words:
            self.text(x + w / 2, y + h / 2, words)

    def grid(
        self, x: float, y: float, values: Any, title: str = "", classes: Classes | None = None,
        show: Callable[[Any], str] = number, cell: float = CELL, high: float | None = None,
    ) -> tuple[float, float]:  # fmt: skip
        """A matrix of numbers with a title above; returns its right and lower ends.

        A cell is ``cell`` wide and ``high`` high, by default a square.
        """
        high = cell if high is None else high
        rows = np.atleast_2d(np.asarray(values))
        if title:
            self.text(x + rows.shape[1] * cell / 2, y - 13, title)
        for (i, j), value in np.ndenumerate(rows):
            style = (classes or {}).get((i, j), "")
            self.box(x + j * cell, y + i * high, cell, high, style, show(value))
        return x + rows.shape[1] * cell, y + rows.shape[0] * high

    def line(self, points: list[tuple[float, float]], style: str = "line") -> None:
        """A line through points."""
        self.parts.append(
            f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" class="{style}"/>'
        )
        for x, y in points:
            self._grow(x, y)

    def arrow(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """A straight arrow."""
        self.line([(x0, y0), (x1, y1)])
        length = max(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5, 1e-9)
        u, v = (x1 - x0) / length, (y1 - y0) / length
        back = (x1 - 8 * u, y1 - 8 * v)
        corners = [(x1, y1), (back[0] - 4 * v, back[1] + 4 * u), (back[0] + 4 * v, back[1] - 4 * u)]
        self.parts.append(
            f'<polygon points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)}" class="head"/>'
        )

    def figure(self, caption: str) -> str:
        """The drawing as HTML, with a caption that says what it shows."""
        margin = 6
        w, h = self.width + 2 * margin, self.height + 2 * margin
        svg = (
            f'<svg viewBox="{-margin} {-margin} {w:.0f} {h:.0f}" width="{w:.0f}" role="img" '
            f'style="min-width: {SMALLEST * w:.0f}px" aria-label="{escape(caption)}">'
            f"{''.join(self.parts)}</svg>"
        )
        words = f"<figcaption>{escape(caption)}</figcaption>"
        return f'<figure class="picture" markdown="0"><div>{svg}</div>{words}</figure>'
