"""What was measured of the recipes: results.json, which benchmarks/recipes.py writes, and the words for it.

An entry holds the flags that the recipe had (``settings``), the test accuracy of each seed, and the
seconds of a whole run on each processor, of minicnn and of the same training in PyTorch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("results.json")


def load() -> dict[str, Any]:
    """The entries by recipe."""
    entries: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return entries


def epochs_of(entry: dict[str, Any]) -> int:
    """The epochs that the recipe of an entry asks for."""
    return next(int(s.removeprefix("--epochs=")) for s in entry["settings"] if s.startswith("--epochs="))


def sentence(entry: dict[str, Any]) -> str:
    """An entry in words: accuracies, then a time for each processor."""
    parts = []
    if "minicnn" in entry:
        parts.append(_accuracy(entry["minicnn"]))
    if "torch" in entry:
        parts.append(f"{_accuracy(entry['torch'])} in PyTorch")
    sentences = ["; ".join(parts)] if parts else []
    sentences += [_time(spent, epochs_of(entry)) for spent in entry.get("times", {}).values()]
    return f"{'. '.join(sentences)}."


def _accuracy(side: dict[str, Any]) -> str:
    mean, error = f"{100 * side['accuracy']:.2f} %", side["standard error"]
    if error is None:
        return f"{mean} (one seed)"
    return f"{mean} +- {100 * error:.2f} ({len(side['seeds'])} seeds)"


def _time(spent: dict[str, Any], epochs: int) -> str:
    place = spent["machine"]
    text = f"{_duration(spent['minicnn'])} on {place['cpu']}, {place['threads']} threads"
    if spent["epochs timed"] != epochs:
        text += f", reckoned from {spent['epochs timed']} of {epochs} epochs"
    if "torch" in spent:
        text += f"; in PyTorch {_duration(spent['torch'])}, {spent['torch / minicnn']} times as long"
    return text


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    whole = int(seconds + 0.5)
    return f"{whole // 60} min {whole % 60} s"
