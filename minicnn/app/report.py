"""The report on a trained model: report.json, the plots, and what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from minicnn import calibration, metrics, plots, plots_judging
from minicnn.app.experiment import Experiment
from minicnn.app.run_folder import PLOTS, REPORT, RunFolder
from minicnn.files import write_json
from minicnn.layers import Sequential

MISTAKES_SHOWN = 24


def make(
    model: Sequential, logits: np.ndarray, labels: np.ndarray, class_names: list[str],
    temperature: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """`metrics.report` on a model's logits (N,K) and labels (N,), and whether its confidence holds.

    All of it is of the answers that the model gives, so of the logits divided by the temperature.  Besides,
    ``computed_by`` is the backend that they came from, ``calibration`` and ``reject`` are what
    `calibration.measure` and `calibration.coverage` give, and ``uncalibrated`` is the calibration without
    the temperature, or None if there is none.
    """
    answers = calibration.scaled(logits, temperature)
    return {
        "computed_by": model.backend.label,
        **metrics.report(answers, labels, class_names),
        "temperature": temperature,
        "calibration": calibration.measure(answers, labels),
        "uncalibrated": None if temperature is None else calibration.measure(logits, labels),
        "reject": calibration.coverage(answers, labels),
    }


def write(
    folder: Path, report: dict[str, Any], images: np.ndarray, labels: np.ndarray, logits: np.ndarray
) -> None:
    """Write report.json and the plots of the answers into a folder that is there.

    Args: report of `make`; images (N,C,H,W) uint8, labels (N,) int64, logits (N,K)
    """
    write_json(folder / REPORT, report)
    plots.confusion(folder / "confusion_matrix.png", report)
    plots_judging.reliability(folder / "reliability.png", report)
    answers = calibration.scaled(logits, report["temperature"])
    worst = metrics.worst_mistakes(answers, labels, MISTAKES_SHOWN)
    plots.mistakes(folder / "mistakes.png", images, labels, worst, report["class_names"])


def show(console: Console, report: dict[str, Any]) -> None:
    """Print the scores of each class, the accuracy, the calibration, and what rejecting answers gains."""
    title = f"{report['images']:,} test images, computed by {report['computed_by']}"
    table = Table("class", title=title)
    for column in ("precision", "recall", "F1", "ROC AUC", "AP", "images"):
        table.add_column(column, justify="right")
    for row in report["per_class"]:
        table.add_row(row["class"], *_percent(row), *_ranking(row), str(row["support"]))
    table.add_section()
    for average in ("macro", "weighted"):
        table.add_row(f"{average} average", *_percent(report[average]), *_ranking(report[average]), "")
    console.print(table)
    console.print(f"accuracy {100 * report['accuracy']:.2f} %, loss {report['loss']:.4f}")
    if report["top_k"] and report["top_k"]["k"] > 1:
        console.print(f"top-{report['top_k']['k']} accuracy {100 * report['top_k']['accuracy']:.2f} %")
    _show_calibration(console, report)
    _show_coverage(console, report)


def _show_calibration(console: Console, report: dict[str, Any]) -> None:
    if report["uncalibrated"]:
        console.print(f"without temperature: {_calibration(report['uncalibrated'])}")
        console.print(
            f"with temperature {report['temperature']:.3f}: {_calibration(report['calibration'])}"
        )
    else:
        console.print(f"calibration: {_calibration(report['calibration'])}")


def _calibration(found: dict[str, Any]) -> str:
    return (
        f"expected calibration error {100 * found['expected_calibration_error']:.2f} %, "
        f"negative log-likelihood {found['negative_log_likelihood']:.4f}"
    )


def _show_coverage(console: Console, report: dict[str, Any]) -> None:
    table = Table(title="if less confident answers are rejected")
    for column in ("confidence from", "images kept", "of all", "accuracy on them"):
        table.add_column(column, justify="right")
    for row in report["reject"]:
        accuracy = "none" if row["accuracy"] is None else f"{100 * row['accuracy']:.2f} %"
        share = f"{100 * row['coverage']:.2f} %"
        table.add_row(f"{100 * row['threshold']:g} %", f"{row['images']:,}", share, accuracy)
    console.print(table)


def finish(folder: RunFolder, experiment: Experiment, console: Console) -> None:
    """Report on the final weights of a run: write report.json, draw all plots, print what came of it."""
    config, dataset = experiment.config, experiment.dataset
    logits = experiment.test_logits()
    result = make(experiment.model, logits, dataset.test.y, dataset.class_names, experiment.temperature)
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
    console.print(f"best: {_best_epoch(experiment)}, in {folder.best}")
    drawn = [str(folder.path / name) for name in PLOTS if (folder.path / name).exists()]
    console.print(f"plots: {', '.join(drawn)}")


def _best_epoch(experiment: Experiment) -> str:
    part = experiment.judge
    judged = [entry for entry in experiment.history if f"{part}_accuracy" in entry]
    best = max(judged, key=lambda entry: entry[f"{part}_accuracy"])
    return f"{100 * best[f'{part}_accuracy']:.2f} % of the {part} images after epoch {best['epoch']}"


def _first_filters(state: dict[str, Any]) -> tuple[str, Any]:
    for name, array in state.items():
        if array.ndim == 4:
            return name.removesuffix(".weight"), array
    return "", None


def _percent(scores: dict[str, float]) -> list[str]:
    return [f"{100 * scores[key]:.2f} %" for key in ("precision", "recall", "f1")]


def _ranking(scores: dict[str, float | None]) -> list[str]:
    """ROC AUC and average precision: none where a class has none, empty in a row that has no such means."""
    if "roc_auc" not in scores:
        return ["", ""]
    values = (scores["roc_auc"], scores["average_precision"])
    return ["none" if value is None else f"{value:.4f}" for value in values]
