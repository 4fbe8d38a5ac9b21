"""look.html and its PNG files: what a model saw in some images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicnn import colours, plots_inside
from minicnn.app import pages
from minicnn.inside import Activation
from minicnn.plots import shorten
from minicnn.plots_inside import Row
from minicnn.text import certainty

PAGE = "look.html"
FILTERS_SHOWN = 16


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A training image that looks alike: pixels (C,H,W), its class, and how far away it is."""

    pixels: NDArray[np.uint8]
    label: str
    distance: float


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was found of one image (C,H,W).

    The likeliest classes come first in ``answers``, with their probabilities; ``label`` is the class that
    ``grad_cam`` (h,w) and ``occlusion`` (H,W) are of.
    """

    file: str
    pixels: NDArray[np.uint8]
    answers: list[tuple[str, float]]
    label: str
    grad_cam: np.ndarray
    occlusion: np.ndarray
    activations: list[Activation]
    neighbours: list[Neighbour]


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the page tells besides: the model, the filters (epoch or None, weight), and notes."""

    model: str
    checkpoint: str
    layer: str
    filters: list[tuple[int | None, np.ndarray]]
    notes: list[str]


def write(folder: Path, seen: list[Seen], told: Told) -> list[Path]:
    """Write the PNG files and the page into a folder that is there; returns their paths, the page's first.

    Raises: OSError
    """
    written = [folder / PAGE]
    filters = _filters(told.filters)
    for name, drawn, title in [
        ("filters.png", filters, "Filters of the first layer"),
        *(png for number, one in enumerate(seen, 1) for png in _pictures(number, one)),
    ]:
        if drawn:
            plots_inside.rows(folder / name, drawn, title)
            written.append(folder / name)
    pages.write(
        folder / PAGE, "look.html", title=f"What {told.model} sees", told=told,
        images=[_entry(one) for one in seen],
        filters=[(row.name, [pages.picture(picture) for picture in row.pictures]) for row in filters],
    )  # fmt: skip
    return written


def _entry(one: Seen) -> dict[str, Any]:
    """What the template shows of an image."""
    return {
        "file": one.file,
        "label": one.label,
        "answers": [(name, certainty(share), round(100 * share, 1)) for name, share in one.answers],
        "views": [(pages.picture(view), text) for view, text in zip(*_views(one)[1:], strict=True)],
        "neighbours": [
            (pages.picture(colours.rgb(near.pixels)), near.label, f"{near.distance:.3g}")
            for near in one.neighbours
        ],
        "layers": [
            (
                row.name,
                _about(found),
                [pages.picture(drawn) for drawn in row.pictures],
                bool(found.channels),
            )
            for row, found in zip(_activations(one), one.activations, strict=True)
        ],
    }


def _pictures(number: int, one: Seen) -> list[tuple[str, list[Row], str]]:
    """File names, rows and titles of an image's PNG files."""
    title = f"{shorten(Path(one.file).name)}: {one.label}"
    near = [colours.rgb(n.pixels) for n in one.neighbours]
    texts = [f"{shorten(n.label)}\n{n.distance:.3g}" for n in one.neighbours]
    return [
        (f"{number}-seen.png", [_views(one)], title),
        (f"{number}-neighbours.png", [Row("nearest", near, texts)] if near else [], title),
        (f"{number}-activations.png", _activations(one), title),
    ]


def _views(one: Seen) -> Row:
    """The image, Grad-CAM and occlusion over it."""
    size = (one.pixels.shape[1], one.pixels.shape[2])
    cam = colours.bright(colours.enlarged(one.grad_cam, size))
    hidden = colours.signed(one.occlusion)
    pictures = [colours.rgb(one.pixels), colours.over(one.pixels, cam), colours.over(one.pixels, hidden)]
    return Row("", pictures, ["the image", "Grad-CAM", "occlusion"])


def _activations(one: Seen) -> list[Row]:
    """A row for each layer; all maps of a layer have one scale, signed where there are negative numbers."""
    found = []
    for activation in one.activations:
        every = np.stack(activation.maps)
        low, high = float(every.min()), float(np.abs(every).max())
        scale = colours.signed if low < 0 else colours.bright
        found.append(Row(f"{activation.name}\n{activation.op}", [scale(one, high) for one in every], []))
    return found


def _about(activation: Activation) -> str:
    shape = "×".join(map(str, activation.shape))
    count = len(activation.channels)
    some = f", the {count} strongest" if 0 < count < activation.shape[0] else ""
    return f"{activation.op}, {shape}{some}"


def _filters(filters: list[tuple[int | None, np.ndarray]]) -> list[Row]:
    """A row for each epoch, all with one scale."""
    limit = max((colours.filter_limit(weight) for _, weight in filters), default=0.0)
    return [
        Row(
            "this checkpoint" if epoch is None else "before training" if epoch == 0 else f"epoch {epoch}",
            [colours.filter_pixels(one, limit) for one in weight[:FILTERS_SHOWN]],
            [],
        )
        for epoch, weight in filters
    ]
