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
    judged = [epoch for epoch in epochs if "validation_accuracy" in epoch]  # none with --validation 0
    best = max(judged, key=lambda e: (e["validation_accuracy"], -e["validation_loss"]), default=epochs[-1])
    for epoch in epochs:
        losses = f"train loss {epoch['train_loss']:.3f}"
        if "validation_loss" in epoch:
            losses += f", validation loss {epoch['validation_loss']:.3f}"
            losses += f", validation accuracy {epoch['validation_accuracy']:.1%}"
        print(f"epoch {epoch['epoch']}: {losses}{'  <- best' if epoch is best else ''}")

    report = json.loads((folder / "report.json").read_text())
    names = report["class_names"]
    weakest = min(report["per_class"], key=lambda row: row["f1"])
    print(f"best epoch, {report['images']} test images: accuracy {report['accuracy']:.1%}")
    print(f"weakest class: {weakest['class']}, F1 {weakest['f1']:.2f}")

    confusion = np.array(report["confusion_matrix"])  # [true, predicted]
    np.fill_diagonal(confusion, 0)
    for place in np.argsort(-confusion, axis=None, kind="stable")[:3]:
        true, predicted = np.unravel_index(place, confusion.shape)
        times = confusion[true, predicted]
        print(f"{times} times {names[predicted]} was predicted where {names[true]} was true")


if __name__ == "__main__":
    main()
