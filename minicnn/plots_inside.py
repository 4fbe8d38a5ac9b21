"""Rows of small pictures with a name each, drawn as `plots` draws: maps, filters, neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minicnn.plots import _figure, _save

MOST_ROWS = 40
GAP, TEXT = 0.12, 0.3
"""Space beside pictures, and for a text above them, in sides of a picture."""


class Row(NamedTuple):
    """A name, pictures (H,W,3), and a text for each, or none for all."""

    name: str
    pictures: list[NDArray[np.uint8]]
    texts: list[str]


def rows(path: Path, drawn: list[Row], title: str) -> None:
    """Draw at most `MOST_ROWS` rows, each with its name to the left and the texts above its pictures."""
    drawn = drawn[:MOST_ROWS]
    columns = max(len(row.pictures) for row in drawn)
    step = 1 + GAP + (TEXT if any(row.texts for row in drawn) else 0)
    figure = _figure(0.9 * columns + 1.8, 0.8 * step * len(drawn) + 0.5)
    axes = figure.subplots()  # one for all: a hundred of them would take seconds
    axes.set_axis_off()
    for number, row in enumerate(drawn):
        top = number * step
        axes.text(-GAP, top + 0.5, row.name, ha="right", va="center", fontsize=7)
        for column, picture in enumerate(row.pictures):
            axes.imshow(picture, extent=_extent(picture, column * (1 + GAP), top), interpolation="nearest")
        for column, text in enumerate(row.texts):
            axes.text(column * (1 + GAP) + 0.5, top - GAP / 2, text, ha="center", va="bottom", fontsize=6)
    axes.set(xlim=(0, columns * (1 + GAP)), ylim=(len(drawn) * step - GAP, 1 + GAP - step))
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def _extent(picture: NDArray[np.uint8], left: float, top: float) -> tuple[float, float, float, float]:
    """Where a picture stands in a square of side 1, in its own proportions: left, right, bottom, top."""
    height, width = (side / max(picture.shape[:2]) for side in picture.shape[:2])
    x, y = left + (1 - width) / 2, top + (1 - height) / 2
    return x, x + width, y + height, y
