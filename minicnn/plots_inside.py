"""Rows of small pictures with a name each, drawn as `plots` draws: maps, filters, neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minicnn.plots import _figure, _save

MOST_ROWS = 40


class Row(NamedTuple):
    """A name, pictures (H,W,3), and a text for each, or none for all."""

    name: str
    pictures: list[NDArray[np.uint8]]
    texts: list[str]


def rows(path: Path, drawn: list[Row], title: str) -> None:
    """Draw at most `MOST_ROWS` rows, each with its name to the left and the texts above its pictures."""
    drawn = drawn[:MOST_ROWS]
    columns = max(len(row.pictures) for row in drawn)
    height = 1.15 if any(row.texts for row in drawn) else 0.85
    figure = _figure(0.85 * columns + 2.2, height * len(drawn) + 0.6)
    grid = figure.subplots(len(drawn), columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for row, line in zip(drawn, grid, strict=True):
        line[0].annotate(
            row.name, (0, 0.5), (-6, 0), xycoords="axes fraction", textcoords="offset points",
            ha="right", va="center", fontsize=7,
        )  # fmt: skip
        for axes, picture in zip(line, row.pictures, strict=False):
            axes.imshow(picture)
        for axes, text in zip(line, row.texts, strict=False):
            axes.set_title(text, fontsize=6)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)
