"""Writes the images of the live page: all of scikit-learn's digits, and some of Fashion-MNIST's garments.

    python scripts/site/live_data.py

docs/live/data.json says what each file holds; a file is its training images, its test images, and then a
byte for each label, in the same order.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from minicnn.app.commands import train
from minicnn.app.settings import Config
from minicnn.data.dataset import load
from minicnn.data.images import Images

FOLDER = Path(__file__).resolve().parent.parent.parent / "docs" / "live"
SETS = {"digits": ("simple_cnn", 1438, 359), "fashion-mnist-sample": ("lenet5", 1000, 250)}
"""Of each dataset: the model that learns it, and how many images are for training and for testing."""


def main() -> None:
    about = {name: write(name, *of) for name, of in SETS.items()}
    (FOLDER / "data.json").write_text(json.dumps({"settings": settings(), "sets": about}, indent=1) + "\n")


def settings() -> dict[str, Any]:
    """Those of a run without a schedule, for the checkpoints that the page saves."""
    given = ["--optimizer", "sgd", "--schedule", "constant", "--validation", "0", "--backend", "cpp"]
    return asdict(Config.resolve(vars(train.parse(given))))


def write(name: str, model: str, train: int, test: int) -> dict[str, Any]:
    """Write the file of a dataset; returns what a reader of the file must know."""
    data = load(name, seed=0)
    parts = [first(data.train, train), first(data.test, test)]
    pixels = np.concatenate([part.x for part in parts])
    labels = np.concatenate([part.y for part in parts]).astype(np.uint8)
    file = FOLDER / f"{name.removesuffix('-sample')}.bin"
    file.write_bytes(pixels.tobytes() + labels.tobytes())
    learnt = parts[0].x / 255
    return {
        "file": file.name, "model": model, "train": train, "test": test,
        "imageShape": list(pixels.shape[1:]), "classNames": list(data.class_names),
        "mean": [round(float(learnt.mean()), 6)], "std": [round(float(learnt.std()), 6)],
    }  # fmt: skip


def first(images: Images, count: int) -> Images:
    """The first ``count`` images."""
    return images.subset(np.arange(count))


if __name__ == "__main__":
    main()
