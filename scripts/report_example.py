"""The example of docs/report.md: a run whose report the page explains, and wrong labels that were planted.

The run trains longer than is good for it, so that its confidence needs the temperature.  For `mislabels`,
images of the sample go to a folder, some of them to the folder of a wrong class; it is counted how many of
these come first.

    python scripts/report_example.py

writes benchmarks/results/report_example.json, and reliability.png and mislabels.png in docs/images, each
again for dark pages.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # this checkout, installed or not

from paired import machine, save  # noqa: E402 - after the path is set
from themes import DARK  # noqa: E402 - likewise

from minicnn import data, mislabels, plots_judging, train  # noqa: E402 - likewise
from minicnn.app.commands.mislabels import SHOWN  # noqa: E402 - likewise
from minicnn.data.split import balanced_subset  # noqa: E402 - likewise

IMAGES = ROOT / "docs" / "images"
COMPUTE = ["--backend", "cpp", "--threads", "1"]
RUN = "--model simple_cnn --limit-train 3000 --epochs 12 --schedule constant --lr 0.001 --temperature"
MISLABELS = "--model simple_cnn --epochs 5 --folds 5"
PICTURES, PLANTED, SEED = 2000, 40, 0
"""Images in the folder for `mislabels`, how many of them get a wrong label, and what chooses them."""


def plant(folder: Path, pictures: int = PICTURES, planted: int = PLANTED) -> set[str]:
    """Write images of the sample, a folder for each class; returns the files that lie in a wrong one."""
    dataset, rng = data.load(data.SAMPLE), np.random.default_rng(SEED)
    names = [name.replace("/", "-") for name in dataset.class_names]
    numbers = balanced_subset(dataset.train.y, pictures, SEED)
    wrong = set(rng.choice(numbers, planted, replace=False).tolist())
    moved = set()
    for number in numbers.tolist():
        label = int(dataset.train.y[number])
        if number in wrong:
            label = (label + int(rng.integers(1, len(names)))) % len(names)
        path = folder / "train" / names[label] / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dataset.train.x[number][0]).save(path)
        if number in wrong:
            moved.add(str(path))
    for label, name in enumerate(names):
        path = folder / "test" / name / "0.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dataset.test.x[np.flatnonzero(dataset.test.y == label)[0]][0]).save(path)
    return moved


def run_report(folder: Path) -> dict[str, Any]:
    """Train as RUN says; its report.json, without what the page does not show."""
    train.main([*shlex.split(RUN), *COMPUTE, "--out", str(folder)])
    shutil.copy(folder / "reliability.png", IMAGES)
    report = json.loads((folder / "report.json").read_text())
    with matplotlib.rc_context(DARK):
        plots_judging.reliability(IMAGES / "reliability-dark.png", report)
    del report["confusion_matrix"], report["computed_by"]
    return {"command": f"minicnn train {RUN}", **report}


def draw_dark(found: list[dict[str, Any]]) -> None:
    """The picture of `mislabels` for dark pages."""
    names = [name.replace("/", "-") for name in data.load(data.SAMPLE).class_names]
    images = np.stack([np.asarray(Image.open(one["file"]))[None] for one in found])
    numbered: Any = [
        {**one, "index": row, **{what: names.index(one[what]) for what in ("label", "predicted")}}
        for row, one in enumerate(found)
    ]
    with matplotlib.rc_context(DARK):
        plots_judging.mislabels(IMAGES / "mislabels-dark.png", images, numbered, names)


def found_labels(folder: Path) -> dict[str, Any]:
    """Search for the planted labels; how many of them are among the first, and among all."""
    moved = plant(folder / "pictures")
    dataset = ["--dataset", f"folder:{folder / 'pictures'}"]
    mislabels.main([*shlex.split(MISLABELS), *COMPUTE, *dataset, "--out", str(folder)])
    shutil.copy(folder / "mislabels.png", IMAGES)
    result = json.loads((folder / "mislabels.json").read_text())
    draw_dark(result["mislabels"][:SHOWN])
    found = [one["file"] in moved for one in result["mislabels"]]
    confident = [one["file"] in moved for one in result["mislabels"] if one["confident"]]
    return {
        "command": f"minicnn mislabels --dataset folder:pictures {MISLABELS}",
        "images": result["images"],
        "planted": len(moved),
        "contradicted": len(found),
        "confident": len(confident),
        "planted among the first": {str(n): sum(found[:n]) for n in (10, 24, len(moved), 100)},
        "planted among the confident": sum(confident),
        "planted among the contradicted": sum(found),
    }


def main() -> None:
    """Run both and save what the page shows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = {
            "machine": machine(1),
            "report": run_report(folder / "run"),
            "mislabels": found_labels(folder),
        }
    save("report_example", result)


if __name__ == "__main__":
    main()
