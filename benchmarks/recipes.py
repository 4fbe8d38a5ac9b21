"""What recipes reach: accuracy and time of `minicnn.train --recipe NAME` and of the same in plain PyTorch.

    python benchmarks/recipes.py NAME [--seeds 0,1,2] [--sides minicnn,torch] [--threads 2]
    python benchmarks/recipes.py NAME --time [--epochs 3] [--sides minicnn,torch] [--threads 2]

The first measures accuracy: that of the test images after the last epoch, never the best one's, since a
recipe learns from all training images and holds none out to choose by; seeds that were measured before
are kept as long as the recipe is the same.  The second measures time: both sides as
whole processes in turn, starting Python and loading the data included.  With --epochs N, runs of one epoch
and of N epochs are timed, and the rest is reckoned from them, since every epoch takes the same
time.  PyTorch runs channels-last, for these nets the faster of its layouts.

Both put what they find under the recipe's name into minicnn/recipes/results.json, which `--recipe list` and
benchmarks/report.py read; times of another processor are kept beside the new ones.
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

from paired import machine

from minicnn import recipes
from minicnn.files import write_json
from minicnn.recipes import results

SIDES = ("minicnn", "torch")


def run(side: str, flags: list[str], backend: str = "cpp") -> tuple[float, float]:
    """Test accuracy after the last epoch, and wall seconds, of a whole process; minicnn on ``backend``."""
    start = time.perf_counter()
    if side == "torch":
        script = str(Path(__file__).with_name("torch_recipe.py"))
        command = [sys.executable, script, "--channels-last", *flags]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout)["accuracy"], time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "minicnn.train", *flags, "--backend", backend]
        subprocess.run([*command, "--out", f"{folder}/run"], check=True, stdout=subprocess.PIPE)
        seconds = time.perf_counter() - start
        report = json.loads((Path(folder) / "run" / "report.json").read_text())
    return report["accuracy"], seconds


def with_accuracies(entry: dict[str, Any], side: str, found: dict[str, float]) -> dict[str, Any]:
    """The entry with these accuracies of seeds added: their mean, and its standard error (None for one)."""
    seeds = entry.get(side, {}).get("seeds", {}) | {seed: round(a, 5) for seed, a in found.items()}
    values = list(seeds.values())
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    mean = {"accuracy": round(statistics.mean(values), 5), "standard error": error and round(error, 5)}
    return entry | {side: {"seeds": seeds, **mean}}


def measure_time(sides: list[str], flags: list[str], epochs: int, timed: int | None) -> dict[str, Any]:
    """The sides' seconds for the recipe's ``epochs``, reckoned from ``timed`` if that is a number."""
    if timed is None:
        seconds = {side: run(side, flags)[1] for side in sides}
    else:
        one, many = (
            {side: run(side, [*flags, "--epochs", str(n)])[1] for side in sides} for n in (1, timed)
        )
        seconds = {s: one[s] + (epochs - 1) * (many[s] - one[s]) / (timed - 1) for s in sides}
    found: dict[str, Any] = {side: round(value, 1) for side, value in seconds.items()}
    if len(found) == 2:
        found["torch / minicnn"] = round(seconds["torch"] / seconds["minicnn"], 2)
    return found | {"epochs timed": epochs if timed is None else timed}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("recipe")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data-dir")
    args = parser.parse_args()
    settings = recipes.arguments(args.recipe)
    flags = ["--recipe", args.recipe, "--threads", str(args.threads)]
    flags += ["--data-dir", args.data_dir] if args.data_dir else []
    found: dict[str, Any] = {}
    sides = args.sides.split(",")
    if args.time:
        epochs = results.epochs_of({"settings": settings})
        place = machine(args.threads)
        spent = measure_time(sides, flags, epochs, args.epochs)
        found["times"] = {place["cpu"]: spent | {"machine": place}}
    else:
        for side in sides:
            found[side] = {}
            for seed in args.seeds.split(","):
                found[side][seed], seconds = run(side, [*flags, "--seed", seed])
                print(f"seed {seed}: {side} {found[side][seed]:.2%} in {seconds:.0f} s", flush=True)
    _keep(args.recipe, settings, found)


def _keep(recipe: str, settings: list[str], found: dict[str, Any]) -> None:
    saved = results.load()
    entry = saved.get(recipe, {})
    if entry.get("settings") != settings:
        entry = {"settings": settings}
    for key, value in found.items():
        if key == "times":
            entry = entry | {key: entry.get(key, {}) | value}
        else:
            entry = with_accuracies(entry, key, value)
    write_json(results.PATH, saved | {recipe: entry})
    print(f"written: {results.PATH}", file=sys.stderr)


if __name__ == "__main__":
    main()
