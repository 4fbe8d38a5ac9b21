"""Reads the files of a training run: its epochs, the best one, the classes that it confuses.

python examples/read_run.py runs/NAME
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np


def main() -> None:
    """Print a summary of the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder that --out named")
    folder = parser.parse_args().run

    config = json.loads((folder / "config.json").read_text())
    print(f"{config['model']} on {config['dataset']}, seed {config['seed']}")

    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    tested = [
        epoch for epoch in epochs if "test_accuracy" in epoch
    ]  # with --test-every, some epochs have no test
    best = max(tested, key=lambda epoch: epoch["test_accuracy"])
    for epoch in tested:
        mark = "  <- best" if epoch is best else ""
        losses = f"train loss {epoch['train_loss']:.3f}, test loss {epoch['test_loss']:.3f}"
        print(f"epoch {epoch['epoch']}: {losses}, test accuracy {epoch['test_accuracy']:.1%}{mark}")

    report = json.loads((folder / "report.json").read_text())
    names = report["class_names"]
    weakest = min(report["per_class"], key=lambda row: row["f1"])
    print(f"last epoch, {report['images']} test images: accuracy {report['accuracy']:.1%}")
    print(f"weakest class: {weakest['class']}, F1 {weakest['f1']:.2f}")

    confusion = np.array(report["confusion_matrix"])  # [true, predicted]
    np.fill_diagonal(confusion, 0)
    for place in np.argsort(-confusion, axis=None, kind="stable")[:3]:
        true, predicted = np.unravel_index(place, confusion.shape)
        times = confusion[true, predicted]
        print(f"{times} times {names[predicted]} was predicted where {names[true]} was true")


if __name__ == "__main__":
    main()
