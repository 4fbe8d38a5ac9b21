"""Kills one of several training processes, starts others, and compares their end with a single process's.

Each trial is a run of 1, 2 or 4 processes in a folder of its own.  At a random moment one of them is killed
with SIGKILL; the others must end by themselves.  Then 1, 2 or 4 processes resume it, and so on, ten times.
In the end every file must be what a single process leaves that nobody disturbs, bit for bit, but for times
and the number of processes.

    python scripts/kill_workers.py [--times 10] [--first 0] [--save]

--save writes benchmarks/results/kill_workers.json.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # this checkout, installed or not

from minicnn import checkpoint  # noqa: E402 - after the path is set
from scripts import kill_resume, workers  # noqa: E402 - likewise

SIZES = (1, 2, 4)
SETTINGS = [
    "--model", "lenet5", "--limit-train", "96", "--limit-test", "64", "--batch-size", "16", "--epochs", "2",
    "--shards", "4", "--backend", "numpy", "--threads", "1", "--save-every", "0", "--peer-timeout", "5",
]  # fmt: skip
KILLS = 10
ATTEMPTS = 5
"""A busy machine may keep a process from answering in time."""
EXPECTED = ["config.json: processes differs"]
"""What distinguishes the folder of a run of several processes."""


def trial(folder: Path, log: Path, seconds: float, generator: np.random.Generator) -> tuple[list[str], str]:
    """A run that is killed `KILLS` times, then resumed to its end; the kills, and what went wrong."""
    arguments = [*SETTINGS, "--resume", "--out", str(folder)]
    killed = []
    for _ in range(KILLS):
        size = int(generator.choice(SIZES))
        started = workers.train(size, log, arguments)
        victim = started[int(generator.integers(size))]
        victim.join(float(generator.uniform(0, seconds)))
        victim.kill()
        if None in workers.end(started):
            return killed, f"a rank of {size} hung"
        killed.append(f"{size} processes{'' if steps(folder) else ', before a step'}")
    for _ in range(ATTEMPTS):
        size = int(generator.choice(SIZES))
        if workers.end(workers.train(size, log, arguments)) == [0] * size:
            return killed, ""
    return killed, f"{size} processes ended with {(log / '0').read_text()}"


def steps(folder: Path) -> int:
    """The steps that the checkpoint in a run's folder has done; 0 if there is none yet."""
    file = folder / "checkpoint.safetensors"
    return checkpoint.load(file).optimizer_steps if file.exists() else 0


def run(trials: range, folder: Path) -> dict[str, Any]:
    """These trials, each with a seed of its own number, in this folder; the counts, and what differed."""
    reference = folder / "undisturbed"
    began = time.time()
    workers.end(workers.train(1, folder / "log", [*SETTINGS, "--out", str(reference)]))
    seconds = (reference / "checkpoint.safetensors").stat().st_mtime - began
    killed: Counter[str] = Counter()
    differing: dict[str, list[str]] = {}
    for number in trials:
        out = folder / str(number)
        when, wrong = trial(out, folder / "log", seconds, np.random.default_rng(number))
        killed.update(when)
        found = [a for a in kill_resume.differences(out, reference) if a not in EXPECTED]
        if wrong or found:
            differing[str(number)] = [wrong, *found]
            print(f"trial {number}: {'; '.join([wrong, *found])}", flush=True)
    return {
        "settings": " ".join(SETTINGS), "trials": len(trials), "kills": killed.total(),
        "killed": dict(sorted(killed.items())), "same end, bit for bit": len(trials) - len(differing),
        "differences": differing,
    }  # fmt: skip


if __name__ == "__main__":
    kill_resume.tell("kill_workers", __doc__, "to kill and resume", "moment and numbers", run)
