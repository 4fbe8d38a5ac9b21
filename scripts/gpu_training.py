"""The section "training" of scripts/gpu.py: a whole recipe, from starting Python to its report."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scripts.gpu_timings import Keep

RECIPE = "fashion-94"


def training(keep: Keep, precision: str, *flags: str) -> None:
    """Train the recipe in this precision; its accuracy, its time, and the images a second of its epochs.

    ``flags`` are more flags of the command.  A training that fails becomes a note.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [
            sys.executable, "-m", "minicnn.train", "--recipe", RECIPE, "--backend", "cuda",
            "--precision", precision, "--out", str(run), *flags,
        ]  # fmt: skip
        start = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - start
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            keep({"note": f"{RECIPE} in {precision}: {reason}"})
            return
        epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        report = json.loads((run / "report.json").read_text())
    keep({"training": RECIPE, "precision": precision, **figures(epochs, report["accuracy"], seconds)})


def figures(epochs: list[dict[str, Any]], accuracy: float, seconds: float) -> dict[str, Any]:
    """What is told of a training; ``seconds`` are those of the whole command."""
    return {
        "accuracy": accuracy,
        "seconds": round(seconds, 2),
        "seconds in epochs": round(sum(epoch["seconds"] for epoch in epochs), 2),
        "images a second": round(statistics.median(epoch["images_per_second"] for epoch in epochs)),
    }
