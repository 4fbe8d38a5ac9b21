"""The report on a trained model: report.json, the plots, and what is printed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from minicnn import metrics, plots
from minicnn.app.command_line import warn
from minicnn.app.experiment import Experiment
from minicnn.app.run_folder import PLOTS, REPORT, RunFolder
from minicnn.files import write_json
from minicnn.layers import Sequential
from minicnn.text import percent, printable

MISTAKES_SHOWN = 24


def make(
    model: Sequential, logits: np.ndarray, labels: np.ndarray, class_names: list[str]
) -> dict[str, Any]:
    """`metrics.report` on a model's logits (N,K), and under ``computed_by`` the backend they came from."""
    return {
        "computed_by": model.backend.label,
        **metrics.report(logits, labels, class_names),
    }


def write(
    folder: Path, report: dict[str, Any], images: np.ndarray, labels: np.ndarray, logits: np.ndarray
) -> None:
    """Write report.json, confusion_matrix.png and mistakes.png into a folder that is there.

    Args: report of `make`; images (N,C,H,W) uint8, labels (N,) int64, logits (N,K)
    """
    write_json(folder / REPORT, report)
    draw(plots.confusion, folder / "confusion_matrix.png", report)
    worst = metrics.worst_mistakes(logits, labels, MISTAKES_SHOWN)
    draw(plots.mistakes, folder / "mistakes.png", images, labels, worst, report["class_names"])


def draw(plot: Callable[..., None], path: Path, *arguments: Any) -> None:
    """Draw one of `plots` into a file.

    If it cannot be drawn, that costs a line on stderr: what a run has come to does not depend on it.  An
    older file of that name goes, since it is of something else.
    """
    try:
        plot(path, *arguments)
    except Exception as error:  # of any type: it comes from matplotlib, or from the disk
        warn(f"{path} is not drawn: {error}")
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def show(console: Console, report: dict[str, Any]) -> None:
    """Print precision, recall and F1 of each class, and the accuracy."""
    title = f"{report['images']:,} test images, computed by {report['computed_by']}"
    table = Table(title=title)
    table.add_column("class", overflow="fold")  # so that no two classes are cut to the same text
    for column in ("precision", "recall", "F1", "images"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in report["per_class"]:
        table.add_row(printable(row["class"]), *_percent(row), str(row["support"]))
    table.add_section()
    for average in ("macro", "weighted"):
        table.add_row(f"{average} average", *_percent(report[average]), "")
    console.print(table)
    console.print(f"accuracy {percent(report['accuracy'], 2)}, loss {report['loss']:.4f}")


def finish(folder: RunFolder, experiment: Experiment, console: Console) -> None:
    """Report on the final weights of a run: print what came of it, then write report.json and the plots."""
    config, dataset = experiment.config, experiment.dataset
    logits = experiment.test_logits()
    result = make(experiment.model, logits, dataset.test.y, dataset.class_names)
    show(console, result)
    if experiment.stopped_early:
        patience = f"for {config.early_stop} epochs"
        console.print(f"stopped early: the validation loss has not fallen {patience}")
    console.print(f"best: {_best_epoch(experiment)}, in {folder.best}")
    write(folder.path, result, dataset.test.x, dataset.test.y, logits)
    title = f"{config.model} on {config.dataset}"
    draw(plots.curves, folder.path / "curves.png", experiment.history, title)
    name, weight = _first_filters(experiment.state_dict())
    if weight is not None:
        draw(plots.filters, folder.path / "filters.png", weight, name)
    drawn = [str(folder.path / name) for name in PLOTS if (folder.path / name).exists()]
    console.print(f"plots: {', '.join(drawn) or 'none'}")


def _best_epoch(experiment: Experiment) -> str:
    part = experiment.judge
    judged = [entry for entry in experiment.history if f"{part}_accuracy" in entry]
    best = max(judged, key=lambda entry: entry[f"{part}_accuracy"])
    return f"{percent(best[f'{part}_accuracy'], 2)} of the {part} images after epoch {best['epoch']}"


def _first_filters(state: dict[str, Any]) -> tuple[str, Any]:
    for name, array in state.items():
        if array.ndim == 4:
            return name.removesuffix(".weight"), array
    return "", None


def _percent(scores: dict[str, float]) -> list[str]:
    return [percent(scores[key], 2) for key in ("precision", "recall", "f1")]
