"""The report on a trained model: report.json, its plots, and the table on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from minicnn import metrics, plots
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
    write_json(folder / "report.json", report)
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


def _percent(scores: dict[str, float]) -> list[str]:
    return [f"{100 * scores[key]:.2f} %" for key in ("precision", "recall", "f1")]
