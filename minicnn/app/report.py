"""The report on a trained model: report.json, the plots, and what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from minicnn import metrics, plots
from minicnn.app.experiment import Experiment
from minicnn.app.run_folder import PLOTS, REPORT, RunFolder
from minicnn.files import write_json
from minicnn.layers import Sequential

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
    plots.confusion(folder / "confusion_matrix.png", report)
    worst = metrics.worst_mistakes(logits, labels, MISTAKES_SHOWN)
    plots.mistakes(folder / "mistakes.png", images, labels, worst, report["class_names"])


def show(console: Console, report: dict[str, Any]) -> None:
    """Print precision, recall and F1 of each class, and the accuracy."""
    title = f"{report['images']:,} test images, computed by {report['computed_by']}"
    table = Table("class", title=title)
    for column in ("precision", "recall", "F1", "images"):
        table.add_column(column, justify="right")
    for row in report["per_class"]:
        table.add_row(row["class"], *_percent(row), str(row["support"]))
    table.add_section()
    for average in ("macro", "weighted"):
        table.add_row(f"{average} average", *_percent(report[average]), "")
    console.print(table)
    console.print(f"accuracy {100 * report['accuracy']:.2f} %, loss {report['loss']:.4f}")


def finish(folder: RunFolder, experiment: Experiment, console: Console) -> None:
    """Test the best weights of a run once: write report.json, draw all plots, print what came of it."""
    config, dataset = experiment.config, experiment.dataset
    logits = experiment.best_logits(folder.best, dataset.test)
    result = make(experiment.model, logits, dataset.test.y, dataset.class_names)
    write(folder.path, result, dataset.test.x, dataset.test.y, logits)
    title = f"{config.model} on {config.dataset}"
    plots.curves(folder.path / "curves.png", experiment.history, title)
    name, weight = _first_filters(experiment.state_dict())
    if weight is not None:
        plots.filters(folder.path / "filters.png", weight, name)
    show(console, result)
    if experiment.stopped_early:
        patience = f"for {config.early_stop} epochs"
        console.print(f"stopped early: the validation loss has not fallen {patience}")
    console.print(f"tested: {folder.best}, {_why_best(experiment)}")
    drawn = [str(folder.path / name) for name in PLOTS if (folder.path / name).exists()]
    console.print(f"plots: {', '.join(drawn)}")


def _why_best(experiment: Experiment) -> str:
    """Which epoch's weights were kept, and why."""
    best = experiment.best
    assert best is not None  # a run that ended has a history
    if experiment.validation is None:
        return f"the weights after the last epoch, {best['epoch']}, as no validation images chose one"
    accuracy = f"{100 * experiment.best_accuracy:.2f} % of {len(experiment.validation):,} validation images"
    return f"the weights after epoch {best['epoch']}, with {accuracy} right"


def _first_filters(state: dict[str, Any]) -> tuple[str, Any]:
    for name, array in state.items():
        if array.ndim == 4:
            return name.removesuffix(".weight"), array
    return "", None


def _percent(scores: dict[str, float]) -> list[str]:
    return [f"{100 * scores[key]:.2f} %" for key in ("precision", "recall", "f1")]
