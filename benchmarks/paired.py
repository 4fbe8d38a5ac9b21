"""Timing that holds on a noisy machine: the sides take turns, and ratios of medians are reported."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def time_in_turn(
    sides: dict[str, Callable[[], object]], *, seconds: float = 3.0, least_rounds: int = 7
) -> dict[str, float]:
    """Median milliseconds of each side; every round calls each side once, after two warm-up rounds."""
    for _ in range(2):
        for call in sides.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in sides}
    end = time.perf_counter() + seconds * len(sides)
    while time.perf_counter() < end or len(next(iter(times.values()))) < least_rounds:
        for name, call in sides.items():
            start = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(samples) for name, samples in times.items()}


def machine(threads: int) -> dict[str, Any]:
    """What a figure depends on: processor, threads, versions, commit."""
    import numpy as np
    import torch

    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
    }


def cpu_name() -> str:
    """The processor's name and the vector instructions that matter here."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    flags = fields.get("flags", "").split()
    vector = next((name for name in ("avx512f", "avx2") if name in flags), "")
    return f"{fields.get('model name', platform.machine())} {vector}".strip()


def save(name: str, result: dict[str, Any]) -> None:
    """Write a result to benchmarks/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(result, indent=1) + "\n")
    aside.replace(path)
    print(f"written: {path}", file=sys.stderr)
