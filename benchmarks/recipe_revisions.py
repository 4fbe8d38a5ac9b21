"""A whole recipe in two revisions of minicnn: their processes take turns, and medians are reported.

    git worktree add /tmp/before REVISION
    python benchmarks/recipe_revisions.py /tmp/before NAME [--epochs N] [--rounds 3] [--threads 2]

Writes benchmarks/results/recipe_revisions.json.  The ratio is before / after: above 1 this checkout is
faster.  With --epochs N, both train for N epochs instead of the recipe's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from paired import first_line, load, machine, save

ROOT = Path(__file__).resolve().parent.parent


def run(checkout: Path, flags: list[str]) -> tuple[float, float]:
    """Wall seconds of a whole process, and its test accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "minicnn.train",
            *flags,
            "--backend",
            "cpp",
            "--out",
            f"{folder}/run",
        ]
        start = time.perf_counter()
        subprocess.run(
            command, check=True, stdout=subprocess.PIPE, cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout)},
        )  # fmt: skip
        seconds = time.perf_counter() - start
        return seconds, json.loads((Path(folder) / "run" / "report.json").read_text())["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path)
    parser.add_argument("recipe")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data")
    args = parser.parse_args()
    flags = ["--recipe", args.recipe, "--threads", str(args.threads)]
    flags += ["--epochs", str(args.epochs)] if args.epochs else []
    flags += ["--data-dir", str(args.data_dir.resolve())]
    sides = {"before": args.checkout.resolve(), "after": ROOT}
    for checkout in sides.values():  # a module is built on first use
        run(checkout, [*flags, "--epochs", "1", "--limit-train", "2000", "--limit-test", "100"])
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    accuracy: dict[str, float] = {}
    for _ in range(args.rounds):
        for side, checkout in sides.items():
            spent, accuracy[side] = run(checkout, flags)
            seconds[side].append(round(spent, 2))
    before, after = (statistics.median(seconds[side]) for side in sides)
    revision = first_line("git", "-C", str(sides["before"]), "rev-parse", "--short", "HEAD")
    found = {
        "machine": machine(args.threads) | {"before": revision}, "epochs": args.epochs or "all",
        "seconds": seconds, "accuracy": accuracy,
        "before / after": round(before / after, 3),
    }  # fmt: skip
    save("recipe_revisions", load("recipe_revisions") | {args.recipe: found})


if __name__ == "__main__":
    main()
