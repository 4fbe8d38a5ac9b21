"""simple_cnn, 3 epochs on the whole Fashion-MNIST: `minicnn.train` against a plain PyTorch script.

    python benchmarks/end_to_end.py --data-dir DIR [--runs 3]

Both learn from all training images, test after each epoch, and choose nothing by that: the accuracy is the
last epoch's.  The two take turns as whole processes; wall time includes starting Python and loading the
data, which both do.  Writes benchmarks/results/end_to_end.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from paired import machine, save

LR = 0.004


def run_minicnn(data_dir: str, seed: int) -> tuple[float, float]:
    """(test accuracy, wall seconds) of the main command."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "minicnn.train", "--backend", "cpp", "--model", "simple_cnn",
            "--dataset", "fashion-mnist", "--data-dir", data_dir, "--epochs", "3", "--threads", "2",
            "--seed", str(seed), "--lr", str(LR), "--validation", "0", "--test-every", "1",
            "--out", f"{folder}/run",
        ]  # fmt: skip
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - start
        report = json.loads((Path(folder) / "run" / "report.json").read_text())
    return report["accuracy"], seconds


def run_torch(data_dir: str, seed: int) -> tuple[float, float]:
    script = Path(__file__).with_name("torch_train.py")
    start = time.perf_counter()
    command = [
        sys.executable, str(script), "--data-dir", data_dir, "--seed", str(seed), "--lr", str(LR),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["accuracy"], time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    sides = {"minicnn": run_minicnn, "torch": run_torch}
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for seed in range(args.runs):
        for name, run in sides.items():
            results[name].append(run(args.data_dir, seed))
            print(name, results[name][-1], flush=True)
    seconds = {name: statistics.median(s for _, s in runs) for name, runs in results.items()}
    save(
        "end_to_end",
        {
            "machine": machine(2),
            "accuracy": {name: [round(a, 4) for a, _ in runs] for name, runs in results.items()},
            "median seconds": {name: round(s, 1) for name, s in seconds.items()},
            "torch / minicnn": round(seconds["torch"] / seconds["minicnn"], 2),
        },
    )


if __name__ == "__main__":
    main()
