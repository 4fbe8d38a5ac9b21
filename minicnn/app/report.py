"""The report on a trained model: report.json, the plots, and what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from minicnn import metrics, plots
from minicnn.app.command_line import warn
from minicnn.app.experiment import Experiment
from minicnn.app.run_folder import REPORT, RunFolder
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
) -> list[Path]:
    """Write report.json, confusion_matrix.png and mistakes.png into a folder that is there.

    Args:    report of `make`; images (N,C,H,W) uint8, labels (N,) int64, logits (N,K)
    Returns: the plots that could be drawn, as `drawn` has it
    """
    write_json(folder / REPORT, report)
    worst = metrics.worst_mistakes(logits, labels, MISTAKES_SHOWN)
    return drawn(
        (plots.confusion, folder / "confusion_matrix.png", report),
        (plots.mistakes, folder / "mistakes.png", images, labels, worst, report["class_names"]),
    )


def drawn(*wanted: tuple[Any, ...]) -> list[Path]:
    """Draw plots, each given as a function of `plots`, a path and more arguments; returns those there are.

    One that cannot be drawn costs a line on stderr: what the run has come to does not depend on it.
    """
    paths = []
    for draw, path, *arguments in wanted:
        try:
            draw(path, *arguments)
        except Exception as error:  # of any type: it comes from matplotlib, or from the disk
            warn(f"{path} is not drawn: {error}")
        else:
            paths.append(path)
    return paths


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
    curves = (
        plots.curves,
        folder.path / "curves.png",
        experiment.history,
        f"{config.model} on {config.dataset}",
    )
    name, weight = _first_filters(experiment.state_dict())
    filters = [] if weight is None else [(plots.filters, folder.path / "filters.png", weight, name)]
    written = write(folder.path, result, dataset.test.x, dataset.test.y, logits)
    paths = [*drawn(curves), *written, *drawn(*filters)]
    if paths:
        console.print(f"plots: {', '.join(map(str, paths))}")


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
