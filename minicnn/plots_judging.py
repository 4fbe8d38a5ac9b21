"""The pictures that say how far a model and its labels can be believed, drawn as `plots` draws."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn.label_errors import Disagreement
from minicnn.plots import _figure, _open_frame, _save, _show, class_labels
from minicnn.text import certainty

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACCURACY, CONFIDENCE = "#4477aa", "#cc6633"


def reliability(path: Path, report: dict[str, Any]) -> None:
    """Accuracy against confidence, and how many images have it; before and after a temperature's scaling.

    Args: report with ``calibration``, ``uncalibrated`` and ``temperature``, as the report of a run has them
    """
    drawn = [("", report["calibration"])]
    if report["uncalibrated"]:
        drawn = [
            ("Without temperature", report["uncalibrated"]),
            (f"With temperature {report['temperature']:.3g}", report["calibration"]),
        ]
    figure = _figure(5 * len(drawn) + 0.6, 5.6)
    grid = figure.subplots(2, len(drawn), height_ratios=(3, 1), sharex=True, sharey="row", squeeze=False)
    for (upper, lower), (title, found) in zip(grid.T, drawn, strict=True):
        _draw_accuracy(upper, found["bins"])
        _draw_shares(lower, found["bins"])
        error = f"expected calibration error {100 * found['expected_calibration_error']:.2f} %"
        upper.set_title(f"{title}\n{error}".lstrip(), fontsize=10)
    figure.suptitle("Is the model right as often as it is sure?")
    _save(figure, path)


def mislabels(path: Path, images: np.ndarray, found: list[Disagreement], class_names: list[str]) -> None:
    """The images whose labels are contradicted, with label, predicted class and its probability.

    Args: images (N,C,H,W) uint8 with C 1 or 3; found, of which each has its ``index`` among them
    """
    columns = min(6, max(len(found), 1))
    rows = max(1, math.ceil(len(found) / columns))
    figure = _figure(max(1.85 * columns, 5), 2.25 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    labels = class_labels(class_names)
    for axes in grid:
        axes.set_axis_off()
    for axes, one in zip(grid, found, strict=False):
        _show(axes, images[one["index"]])
        label, predicted = (labels[number] for number in (one["label"], one["predicted"]))
        axes.set_title(
            f"label: {label}\nmodel: {predicted}\n{certainty(one['probability'])} sure", fontsize=8
        )
    figure.suptitle("The most confidently contradicted labels" if found else "No label is contradicted")
    _save(figure, path)


def _draw_accuracy(axes: Axes, bins: list[dict[str, Any]]) -> None:
    """A bar for each bin that has images, to its accuracy, and a mark at its mean confidence."""
    filled = [one for one in bins if one["images"]]
    axes.bar(
        [50 * (one["low"] + one["high"]) for one in filled],
        [100 * one["accuracy"] for one in filled],
        width=[90 * (one["high"] - one["low"]) for one in filled],
        color=ACCURACY, alpha=0.8, label="accuracy",
    )  # fmt: skip
    means = [100 * one["confidence"] for one in filled]
    axes.plot(means, means, "o", markersize=5, color=CONFIDENCE, label="mean confidence")
    axes.plot([0, 100], [0, 100], "--", linewidth=1, color="gray", label="perfectly calibrated")
    axes.set(ylabel="Right answers (%)", xlim=(0, 100), ylim=(0, 101))
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", fontsize=8)
    _open_frame(axes)


def _draw_shares(axes: Axes, bins: list[dict[str, Any]]) -> None:
    count = sum(one["images"] for one in bins)
    axes.bar(
        [50 * (one["low"] + one["high"]) for one in bins],
        [100 * one["images"] / count for one in bins],
        width=[90 * (one["high"] - one["low"]) for one in bins],
        color="gray",
    )  # fmt: skip
    axes.set(xlabel="Confidence (%)", ylabel="Images (%)")
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    _open_frame(axes)
