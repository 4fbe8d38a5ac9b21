"""The report on a trained model: report.json, the plots, report.html, and what is printed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from minicnn import calibration, data, metrics, plots, plots_judging
from minicnn.app import provenance
from minicnn.app.command_line import warn
from minicnn.app.events import events
from minicnn.app.experiment import Experiment
from minicnn.app.pages import report_page
from minicnn.app.pages.report_page import About
from minicnn.app.run_folder import PAGE, PLOTS, REPORT, RunFolder
from minicnn.app.together import of_first
from minicnn.files import write_json
from minicnn.layers import Sequential
from minicnn.layers.conv2d import first_filters
from minicnn.text import percent, printable

MISTAKES_SHOWN = 24


def make(
    model: Sequential, logits: np.ndarray, labels: np.ndarray, class_names: list[str],
    temperature: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """`metrics.report` on a model's logits (N,K) and labels (N,), and whether its confidence holds.

    All of it is of the answers that the model gives, so of the logits divided by the temperature.  Besides,
    ``computed_by`` is the backend that they came from, ``precision`` the model's, ``calibration`` and
    ``reject`` are what `calibration.measure` and `calibration.coverage` give, and ``uncalibrated`` is the
    calibration without the temperature, or None if there is none.
    """
    answers = calibration.scaled(logits, temperature)
    return {
        "computed_by": model.backend.label,
        "precision": model.precision,
        **metrics.report(answers, labels, class_names),
        "temperature": temperature,
        "calibration": calibration.measure(answers, labels),
        "uncalibrated": None if temperature is None else calibration.measure(logits, labels),
        "reject": calibration.coverage(answers, labels),
    }


def write(
    folder: Path, report: dict[str, Any], images: data.Images, logits: np.ndarray, about: About
) -> None:
    """Write report.json, the plots of the answers and report.html into a folder that is there.

    Args: report of `make`; the N images with their labels; logits (N,K); about what the page tells besides
    """
    write_json(folder / REPORT, report)
    draw(plots.confusion, folder / "confusion_matrix.png", report)
    draw(plots_judging.reliability, folder / "reliability.png", report)
    answers = calibration.scaled(logits, report["temperature"])
    worst = metrics.worst_mistakes(answers, images.y, MISTAKES_SHOWN)
    rows = np.array([row for row, _, _ in worst], np.int64)
    numbered = [(number, *answer) for number, (_, *answer) in enumerate(worst)]
    drawn = images.take(rows), images.y[rows], numbered
    draw(plots.mistakes, folder / "mistakes.png", *drawn, report["class_names"])
    mistakes = [(image, int(label), *answer[1:]) for image, label, answer in zip(*drawn, strict=True)]
    draw(report_page.write, folder / PAGE, report, mistakes, about)


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
    """Print the scores of each class, the accuracy, the calibration, and what rejecting answers gains."""
    title = f"{report['images']:,} test images, computed by {report['computed_by']}"
    table = Table(title=title)
    table.add_column("class", overflow="fold")  # so that no two classes are cut to the same text
    for column in ("precision", "recall", "F1", "ROC AUC", "AP", "images"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in report["per_class"]:
        table.add_row(printable(row["class"]), *_percent(row), *_ranking(row), str(row["support"]))
    table.add_section()
    for average in ("macro", "weighted"):
        table.add_row(f"{average} average", *_percent(report[average]), *_ranking(report[average]), "")
    console.print(table)
    console.print(f"accuracy {percent(report['accuracy'], 2)}, loss {report['loss']:.4f}")
    if report["top_k"] and report["top_k"]["k"] > 1:
        console.print(f"top-{report['top_k']['k']} accuracy {percent(report['top_k']['accuracy'], 2)}")
    _show_calibration(console, report)
    _show_coverage(console, report)


def finish(folder: RunFolder, experiment: Experiment, console: Console) -> None:
    """Test the best weights of a run once: print what came of it, then write report.json and the plots.

    All ranks of a group predict; rank 0 prints and writes.
    """
    config, dataset, group = experiment.config, experiment.dataset, experiment.group
    saved = of_first(group, folder.load_best)
    logits = experiment.best_logits(folder.best, saved, dataset.test)
    if not group.is_first:
        return
    result = make(experiment.model, logits, dataset.test.y, dataset.class_names, experiment.temperature)
    show(console, result)
    if experiment.stopped_early:
        patience = f"for {config.early_stop} epochs"
        console.print(f"stopped early: the validation loss has not fallen {patience}")
    console.print(f"tested: {folder.best}, {_why_best(experiment)}")
    filters = first_filters(experiment.model.state_dict())  # the best weights, since it was tested
    about = About(
        settings=asdict(config), computed=provenance.about(experiment.model.backend),
        tested=f"Tested on {len(dataset.test):,} images: {_why_best(experiment)}.",
        history=experiment.history, best_epoch=(experiment.best or {}).get("epoch"), filters=filters,
    )  # fmt: skip
    write(folder.path, result, dataset.test, logits, about)
    title = f"{config.model} on {config.dataset}"
    draw(plots.curves, folder.path / "curves.png", experiment.history, title)
    if filters:
        draw(plots.filters, folder.path / "filters.png", filters[1], filters[0])
    with events(folder.path, experiment) as log:
        log.report(experiment, result, folder.path / "confusion_matrix.png")
    if (folder.path / PAGE).exists():
        console.print(f"report: {folder.path / PAGE}")
    drawn = [str(folder.path / name) for name in PLOTS if (folder.path / name).exists()]
    console.print(f"plots: {', '.join(drawn) or 'none'}")


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
        accuracy = "none" if row["accuracy"] is None else percent(row["accuracy"], 2)
        share = percent(row["coverage"], 2)
        table.add_row(f"{100 * row['threshold']:g} %", f"{row['images']:,}", share, accuracy)
    console.print(table)


def _why_best(experiment: Experiment) -> str:
    """Which epoch's weights were kept, and why."""
    best = experiment.best
    assert best is not None  # a run that ended has a history
    if experiment.validation is None:
        return f"the weights after the last epoch, {best['epoch']}, as no validation images chose one"
    accuracy = f"{percent(experiment.best_accuracy, 2)} of {len(experiment.validation):,} validation images"
    return f"the weights after epoch {best['epoch']}, with {accuracy} right"


def _percent(scores: dict[str, float]) -> list[str]:
    return [percent(scores[key], 2) for key in ("precision", "recall", "f1")]


def _ranking(scores: dict[str, float | None]) -> list[str]:
    """ROC AUC and average precision: none where a class has none, empty in a row that has no such means."""
    if "roc_auc" not in scores:
        return ["", ""]
    values = (scores["roc_auc"], scores["average_precision"])
    return ["none" if value is None else f"{value:.4f}" for value in values]
