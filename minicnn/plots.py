"""The pictures of a run, as PNG files: curves, confusion matrix, mistakes, filters, augmented images.

Each function draws one figure and writes it atomically.  matplotlib is imported when the first is
drawn, and its pyplot state is left alone.  Ground and text have the colours of matplotlib's settings, so a
dark style makes dark plots.  All text is plain: a dollar sign starts no formula, and what no
font has, or nobody could read, is drawn as its escape.
"""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn.files import write_atomically
from minicnn.glyphs import drawable, families
from minicnn.text import certainty, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"train": "#4477aa", "validation": "#228833", "test": "#cc6633"}
LONGEST_NAME = 18


def curves(path: Path, history: list[dict[str, Any]], title: str) -> None:
    """Loss and accuracy of each part that the history's entries have, against the epoch."""
    figure = _figure(10, 4.2)
    for axes, key, label, scale in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), ("Loss (cross-entropy)", "Accuracy (%)"), (1, 100),
        strict=True,
    ):  # fmt: skip
        for part, colour in COLOURS.items():
            points = [
                (entry["epoch"], scale * entry[f"{part}_{key}"])
                for entry in history
                if f"{part}_{key}" in entry
            ]
            if not points:
                continue
            name = f"{part} (while learning)" if part == "train" else part
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=colour, label=name)
        axes.set(xlabel="Epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        axes.legend()
        _open_frame(axes)
    figure.suptitle(title)
    _save(figure, path)


def confusion(path: Path, report: dict[str, Any]) -> None:
    """The confusion matrix, each row in per cent of its true class."""
    counts = np.array(report["confusion_matrix"])
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = class_labels(report["class_names"])
    k = len(names)
    side = min(max(4.8, 2.4 + 0.55 * k), 16)
    figure = _figure(side + 1, side)
    axes = figure.subplots()
    picture = axes.imshow(share, cmap=_shades(), vmin=0, vmax=100)
    font = float(np.clip(38 * side / k, 4, 10))  # points; a cell is about 54 * side / k high
    turn: dict[str, Any] = {"rotation": 90}
    if k <= 30:
        turn = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(k), names, fontsize=font, **turn)
    axes.set_yticks(range(k), names, fontsize=font)
    axes.set(xlabel="Predicted class", ylabel="True class")
    axes.set_title(f"{percent(report['accuracy'], 2)} of {report['images']:,} images right")
    if k <= 30:
        _write_cells(axes, share, font)
    bar = figure.colorbar(picture, ax=axes, shrink=0.8, aspect=30)
    bar.set_label("Share of the true class (%)")
    _save(figure, path)


def mistakes(
    path: Path, images: np.ndarray, labels: np.ndarray, worst: list[tuple[int, int, float]],
    class_names: list[str],
) -> None:  # fmt: skip
    """The most confident mistakes.

    Args: images (N,C,H,W) uint8 with C 1 or 3, labels (N,), worst as `metrics.worst_mistakes` gives it
    """
    columns = min(6, max(len(worst), 1))
    rows = max(1, math.ceil(len(worst) / columns))
    figure = _figure(max(1.75 * columns, 4), 2.25 * rows + 0.5)
    grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes in grid:
        axes.set_axis_off()
    names = class_labels(class_names)
    for axes, (row, predicted, probability) in zip(grid, worst, strict=False):
        _show(axes, images[row])
        axes.set_title(
            f"true: {names[labels[row]]}\nsaid: {names[predicted]}\n{certainty(probability)} sure",
            fontsize=8,
        )
    figure.suptitle("The most confident mistakes" if worst else "No mistakes")
    _save(figure, path)


def filters(path: Path, weight: np.ndarray, name: str) -> None:
    """The filters of a convolution (F,C,KH,KW): in colour if C is 3, else the mean over C."""
    count = min(len(weight), 64)
    columns = min(8, count)
    rows = math.ceil(count / columns)
    shown = weight[:count].astype(np.float64)
    colour = weight.shape[1] == 3
    limit = float(np.abs(shown if colour else shown.mean(axis=1)).max()) or 1.0
    figure = _figure(max(1.0 * columns + 1, 5), 1.0 * rows + 0.8)
    grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    picture = None
    for axes, one in zip(grid, shown, strict=False):
        if colour:
            axes.imshow((one.transpose(1, 2, 0) / limit + 1) / 2)
        else:
            picture = axes.imshow(one.mean(axis=0), cmap="RdBu_r", vmin=-limit, vmax=limit)
    for axes in grid:
        axes.set_axis_off()
    if picture is not None:
        bar = figure.colorbar(picture, ax=list(grid), shrink=0.8)
        bar.set_label("weight" if weight.shape[1] == 1 else f"mean weight over {weight.shape[1]} channels")
    of = f"{count} of {len(weight)}" if count < len(weight) else f"the {count}"
    grey = "; grey is 0" if colour else ""
    figure.suptitle(f"First layer, {name}: {of} filters, {weight.shape[2]}×{weight.shape[3]}{grey}")
    _save(figure, path)


def grid(path: Path, images: np.ndarray, titles: list[str], title: str) -> None:
    """Images in rows and columns, the columns with titles.

    Args: images (rows, columns, C, H, W) uint8 with C 1 or 3
    """
    rows, columns = images.shape[:2]
    figure = _figure(max(1.1 * columns, 4), 1.1 * rows + 0.8)
    for place, axes in np.ndenumerate(figure.subplots(rows, columns, squeeze=False)):
        _show(axes, images[place])
        axes.set_axis_off()
        if place[0] == 0:
            axes.set_title(titles[place[1]], fontsize=8)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def class_labels(names: list[str]) -> list[str]:
    """The names of all classes as plots show them: `shorten`, and numbered where two would look alike."""
    short = [shorten(name) for name in names]
    if len(set(short)) == len(short):
        return short
    return [f"{number}: {label}" for number, label in enumerate(short)]


def shorten(name: str) -> str:
    """A class name cut to what fits beside a picture: where it is long, its beginning and its end."""
    name = drawable(name)
    if len(name) <= LONGEST_NAME:
        return name
    tail = LONGEST_NAME // 2 - 1
    return f"{name[: LONGEST_NAME - 1 - tail]}…{name[-tail:]}"


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))


def _save(figure: Figure, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    data = io.BytesIO()
    FigureCanvasAgg(figure)
    _make_text_plain(figure)
    with warnings.catch_warnings():  # a family's file may lack what another file of the family has
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        figure.savefig(data, format="png", dpi=130)
    write_atomically(path, data.getvalue())


def _make_text_plain(figure: Figure) -> None:
    """Let no text be read as a formula, and every character have a font.

    The names at ticks must be `drawable` already: matplotlib keeps them apart from the text that it draws.
    """
    from matplotlib.text import Text

    for artist in figure.findobj(Text):
        assert isinstance(artist, Text)
        lines = "\n".join(map(drawable, artist.get_text().split("\n")))
        artist.set(text=lines, parse_math=False, fontfamily=[*artist.get_fontfamily(), *families(lines)])


def _open_frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _shades() -> Any:
    """A scale whose 0 is the ground: white to dark blue, or a dark ground to light blue."""
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap

    if not _is_dark():
        return matplotlib.colormaps["Blues"]
    return LinearSegmentedColormap.from_list("shades", [matplotlib.rcParams["axes.facecolor"], "#9ecae1"])


def _is_dark() -> bool:
    """Whether matplotlib's settings ask for a dark ground."""
    import matplotlib
    from matplotlib.colors import to_rgb

    return sum(to_rgb(matplotlib.rcParams["axes.facecolor"])) < 1.5


def _write_cells(axes: Axes, share: np.ndarray, font: float) -> None:
    for (i, j), value in np.ndenumerate(share):
        if value:
            colour = "white" if (value > 50) != _is_dark() else "black"
            text = f"{value:.0f}" if value > 0.5 else "<1"
            axes.text(j, i, text, ha="center", va="center", fontsize=font, color=colour)


def _show(axes: Axes, image: np.ndarray) -> None:
    if image.shape[0] == 3:
        axes.imshow(image.transpose(1, 2, 0))
    else:
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=255)
