"""What recipes reach: accuracy and time of `minicnn.train --recipe NAME` and of the same in plain PyTorch.

    python benchmarks/recipes.py NAME [--seeds 3] [--torch-seeds 3] [--channels-last] [flags of train]

The two take turns as whole processes, a seed at a time; wall time includes starting Python and loading the
data, which both do.  Accuracy is the test accuracy after the last epoch, never the best one's.  The result
is put under the recipe's name into benchmarks/results/recipes.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from paired import RESULTS, machine, save

Result = tuple[float, float]
"""Test accuracy and wall seconds."""


def run_minicnn(flags: list[str]) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "minicnn.train", *flags, "--out", f"{folder}/run"]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.PIPE)
        seconds = time.perf_counter() - start
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    return json.loads(lines[-1])["test_accuracy"], seconds


def run_torch(flags: list[str]) -> Result:
    script = Path(__file__).with_name("torch_recipe.py")
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(script), *flags], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)["accuracy"], time.perf_counter() - start


def summary(results: list[Result]) -> dict[str, Any]:
    """Mean accuracy with its standard error (None for one seed), and the median time."""
    accuracies, seconds = zip(*results, strict=True)
    error = statistics.stdev(accuracies) / math.sqrt(len(accuracies)) if len(accuracies) > 1 else None
    return {
        "accuracy": round(statistics.mean(accuracies), 5),
        "standard error": None if error is None else round(error, 5),
        "accuracies": [round(a, 5) for a in accuracies],
        "median seconds": round(statistics.median(seconds), 1),
    }


def measure(
    flags: list[str], seeds: int, torch_seeds: int, torch_flags: list[str]
) -> dict[str, dict[str, Any]]:
    """Both sides' summaries; ``flags`` are those of minicnn.train."""
    results: dict[str, list[Result]] = {"minicnn": [], "torch": []}
    for seed in range(max(seeds, torch_seeds)):
        both = [*flags, "--seed", str(seed)]
        if seed < seeds:
            results["minicnn"].append(run_minicnn([*both, "--backend", "cpp"]))
            print(f"seed {seed}: minicnn", *results["minicnn"][-1], flush=True)
        if seed < torch_seeds:
            results["torch"].append(run_torch([*both, *torch_flags]))
            print(f"seed {seed}: torch", *results["torch"][-1], flush=True)
    return {name: summary(runs) for name, runs in results.items() if runs}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--torch-seeds", type=int, default=3)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    args, more = parser.parse_known_args()
    flags = ["--recipe", args.recipe, "--threads", str(args.threads), *more]
    sides = measure(flags, args.seeds, args.torch_seeds, ["--channels-last"] if args.channels_last else [])
    entry: dict[str, Any] = {"machine": machine(args.threads), "flags": more, **sides}
    if len(sides) == 2:
        ratio = sides["torch"]["median seconds"] / sides["minicnn"]["median seconds"]
        entry["torch / minicnn"] = round(ratio, 2)
        entry["torch is"] = "channels-last" if args.channels_last else "eager"
    path = RESULTS / "recipes.json"
    saved = json.loads(path.read_text()) if path.exists() else {}
    save("recipes", saved | {args.recipe: entry})


if __name__ == "__main__":
    main()
