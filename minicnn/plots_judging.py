"""The pictures that say how far a model and its labels can be believed, drawn as `plots` draws."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicnn.plots import TEST, TRAIN, _figure, _open_frame, _save

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    grid = figure.subplots(2, len(drawn), height_ratios=(3, 1), sharex=True, squeeze=False)
    for (upper, lower), (title, found) in zip(grid.T, drawn, strict=True):
        _draw_accuracy(upper, found["bins"])
        _draw_shares(lower, found["bins"])
        error = f"expected calibration error {100 * found['expected_calibration_error']:.2f} %"
        upper.set_title(f"{title}\n{error}".lstrip(), fontsize=10)
    figure.suptitle("Is the model right as often as it is sure?")
    _save(figure, path)


def _draw_accuracy(axes: Axes, bins: list[dict[str, Any]]) -> None:
    """A bar for each bin that has images, to its accuracy, and a mark at its mean confidence."""
    filled = [one for one in bins if one["images"]]
    axes.bar(
        [50 * (one["low"] + one["high"]) for one in filled],
        [100 * one["accuracy"] for one in filled],
        width=[90 * (one["high"] - one["low"]) for one in filled],
        color=TRAIN, alpha=0.8, label="accuracy",
    )  # fmt: skip
    means = [100 * one["confidence"] for one in filled]
    axes.plot(means, means, "o", markersize=5, color=TEST, label="mean confidence")
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
