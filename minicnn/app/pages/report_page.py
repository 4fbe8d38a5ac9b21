"""report.html: all that came of a run in one page."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicnn import colours
from minicnn.app import pages
from minicnn.app.known_paths import without_folders
from minicnn.app.pages.charts import Chart, line_chart
from minicnn.app.progress import duration
from minicnn.app.settings import Config, flag_of
from minicnn.text import certainty, percent, shell_word

MOST_CLASSES, MOST_WRITTEN = 100, 30
"""Classes whose matrix is shown, and whose cells have room for a number."""
CONFUSIONS, FILTERS = 12, 64
"""How many of them are shown at most."""
PARTS = ("train", "validation", "test")

Mistakes = list[tuple[NDArray[np.uint8], int, int, float]]
"""Wrong answers, the surest first: image (C,H,W), label, answer, its probability."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What the page tells besides the report."""

    settings: dict[str, Any]
    """The run's, by the names of `Config`."""
    computed: dict[str, Any]
    """As `provenance.about` gives it."""
    tested: str
    """Which weights were tested, and on what."""
    history: list[dict[str, Any]]
    best_epoch: int | None = None
    """The epoch whose weights were tested, where the history has it."""
    filters: tuple[str, np.ndarray] | None = None
    """Name and weight (F,C,KH,KW) of the first convolution, if there is one."""


def write(path: Path, report: dict[str, Any], mistakes: Mistakes, about: About) -> None:
    """Write the page.  It may be passed on, so of paths it has the last part alone.  Raises OSError.

    Args: report of `app.report.make`
    """
    names, settings = report["class_names"], without_folders(about.settings)
    pages.write(
        path, "report.html", title=f"{settings['model']} on {settings['dataset']}",
        report=report, about=about, charts=_charts(about), reliability=_reliability(report),
        facts=_facts(report, about), history=_history(about.history), matrix=_matrix(report),
        written=len(names) <= MOST_WRITTEN, confusions=_confusions(report)[:CONFUSIONS],
        mistakes=[
            (pages.picture(colours.rgb(image)), names[label], names[answer], certainty(probability))
            for image, label, answer, probability in mistakes
        ],
        filters=_filters(about.filters), settings=_settings(settings),
        command=_command(settings), computed=_computed(report, about.computed),
    )  # fmt: skip


def _charts(about: About) -> list[Chart]:
    """Loss and accuracy of each part that the history has, by epoch."""
    found = []
    for key, title, scale in (("loss", "Loss (cross-entropy)", 1), ("accuracy", "Accuracy (%)", 100)):
        lines = {
            part: [(e["epoch"], scale * e[f"{part}_{key}"]) for e in about.history if f"{part}_{key}" in e]
            for part in PARTS
        }
        lines = {part: points for part, points in lines.items() if points}
        if lines:
            found.append(line_chart(title, "epoch", lines, mark=about.best_epoch))
    return found


def _reliability(report: dict[str, Any]) -> Chart | None:
    """Accuracy against confidence, in bins; the model's own, and as it was before the temperature."""
    drawn = {"answers": report["calibration"]}
    if report["uncalibrated"]:
        drawn["without temperature"] = report["uncalibrated"]
    lines = {
        name: [(100 * b["confidence"], 100 * b["accuracy"]) for b in found["bins"] if b["images"]]
        for name, found in drawn.items()
    }
    if not lines["answers"]:
        return None
    lines["as sure as right"] = [(0, 0), (100, 100)]
    return line_chart("Right answers (%)", "confidence (%)", lines, whole=False)


def _facts(report: dict[str, Any], about: About) -> list[tuple[str, str]]:
    """The few figures that the page begins with."""
    facts = [
        ("accuracy", percent(report["accuracy"], 2)),
        ("macro F1", percent(report["macro"]["f1"], 2)),
        ("loss", f"{report['loss']:.4f}"),
    ]
    if report["top_k"] and report["top_k"]["k"] > 1:
        facts.append((f"top-{report['top_k']['k']} accuracy", percent(report["top_k"]["accuracy"], 2)))
    error = report["calibration"]["expected_calibration_error"]
    facts += [("calibration error", percent(error, 2)), ("test images", f"{report['images']:,}")]
    if about.history:
        trained = duration(sum(entry["seconds"] for entry in about.history))
        facts += [("epochs", str(len(about.history))), ("training took", trained)]
    return facts


def _history(history: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a table of all epochs."""
    keys = list(dict.fromkeys(key for entry in history for key in entry))
    return [key.replace("_", " ") for key in keys], [
        ["" if key not in entry else _number(key, entry[key]) for key in keys] for entry in history
    ]


def _number(key: str, value: Any) -> str:
    return percent(value, 2) if key.endswith("accuracy") else f"{value:.4g}"


def _matrix(report: dict[str, Any]) -> list[dict[str, Any]] | None:
    """A row for each true class: its total, and for each answer count, per cent, and strength of colour."""
    if len(report["class_names"]) > MOST_CLASSES:
        return None
    rows = []
    for name, counts in zip(report["class_names"], report["confusion_matrix"], strict=True):
        total = sum(counts)
        shares = [count / max(total, 1) for count in counts]
        cells = [
            (
                count,
                "<1" if 0 < share < 0.005 else f"{100 * share:.0f}" if count else "",
                round(100 * share**0.5),
            )
            for count, share in zip(counts, shares, strict=True)
        ]
        rows.append({"name": name, "total": total, "cells": cells})
    return rows


def _confusions(report: dict[str, Any]) -> list[tuple[int, int, str, str]]:
    """The most frequent mistakes: (count, images of the true class, its name, the answer)."""
    names = report["class_names"]
    found = [
        (count, sum(row), names[i], names[j])
        for i, row in enumerate(report["confusion_matrix"])
        for j, count in enumerate(row)
        if count and i != j
    ]
    return sorted(found, key=lambda one: -one[0])


def _filters(found: tuple[str, np.ndarray] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    name, weight = found
    limit = colours.filter_limit(weight)
    shown = [pages.picture(colours.filter_pixels(one, limit)) for one in weight[:FILTERS]]
    return {
        "name": name,
        "shape": "×".join(map(str, weight.shape)),
        "pictures": shown,
        "count": len(weight),
    }


def _settings(settings: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Flag, value, and whether it is another than the default, of each setting that applies."""
    defaults = _defaults(settings["optimizer"])
    return [
        (flag_of(name), _shown(value), value != defaults.get(name))
        for name, value in settings.items()
        if value is not None
    ]


def _command(settings: dict[str, Any]) -> str:
    """The command that begins such a run."""
    defaults, words = _defaults(settings["optimizer"]), ["minicnn", "train"]
    for name, value in settings.items():
        if value is None or value == defaults.get(name):
            continue
        words.append(flag_of(name))
        if value is not True:
            values = value if isinstance(value, tuple | list) else [value]
            words += [shell_word(str(one)) for one in values]
    return " ".join(words)


def _defaults(optimizer: str) -> dict[str, Any]:
    """What each setting is if its flag is not given, some of which follow from the optimizer."""
    plain = {f.name: f.metadata["flag"].get("default") for f in fields(Config)}
    return asdict(Config.resolve(plain | {"optimizer": optimizer})) | {"optimizer": plain["optimizer"]}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _computed(report: dict[str, Any], computed: dict[str, Any]) -> list[tuple[str, str]]:
    """What computed the run, line by line."""
    lines = [("backend", f"{report['computed_by']}, {report['precision']}")]
    lines += [(key, str(computed[key])) for key in ("processor", "system", "time") if computed.get(key)]
    lines += [(name, str(version)) for name, version in computed["versions"].items()]
    if computed["commit"]:
        changed = " with uncommitted changes" if computed["uncommitted_changes"] else ""
        lines.append(("commit", f"{computed['commit']}{changed}"))
    return lines
