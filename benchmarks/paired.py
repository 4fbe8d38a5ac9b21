"""Timing that can be trusted on a noisy machine: the sides take turns, and medians are reported."""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

SETTLE_SECONDS = 0.12
"""How long a side is called untimed at the beginning of its turn.

The threads of the previous side still spin, and slow whoever comes next: those of torch for some
milliseconds, those of ONNX Runtime for up to 100.
"""
CALLS_PER_TURN = 3
"""How many calls are timed in each turn."""
TURN_SECONDS = 0.3
"""After this time a turn ends, even if fewer calls were timed."""


def time_in_turn(
    sides: dict[str, Callable[[], object]], *, seconds: float = 3.0, least_rounds: int = 5
) -> dict[str, float]:
    """Median milliseconds of a call of each side; the sides take turns, round after round.

    ``seconds`` is the whole time for each side; at least ``least_rounds`` rounds are made.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    end = time.perf_counter() + seconds * len(sides)
    rounds = 0
    while time.perf_counter() < end or rounds < least_rounds:
        rounds += 1
        for name, call in sides.items():
            settled = time.perf_counter() + SETTLE_SECONDS
            call()
            while time.perf_counter() < settled:
                call()
            end_of_turn = time.perf_counter() + TURN_SECONDS
            for _ in range(CALLS_PER_TURN):
                start = time.perf_counter()
                call()
                end_of_call = time.perf_counter()
                times[name].append((end_of_call - start) * 1e3)
                if end_of_call > end_of_turn:
                    break
    return {name: statistics.median(samples) for name, samples in times.items()}


def machine(threads: int) -> dict[str, Any]:
    """What a figure depends on: processor, threads, versions of the libraries, compiler, commit."""
    import numpy as np
    import torch

    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        **{name: version for name in ("jax", "onnxruntime", "openvino") if (version := version_of(name))},
        "compiler": first_line(*shlex.split(os.environ.get("CXX", "g++")), "--version"),
        "commit": first_line("git", "rev-parse", "--short", "HEAD"),
    }


def version_of(package: str) -> str:
    """The installed version of a package; empty if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def first_line(*command: str) -> str:
    """The first line that a command prints; empty if the command cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.partition("\n")[0]


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


def load(name: str) -> dict[str, Any]:
    """The saved result, or an empty one."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def save(name: str, result: dict[str, Any]) -> None:
    """Write a result to benchmarks/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(result, indent=1) + "\n")
    aside.replace(path)
    print(f"written: {path}", file=sys.stderr)
