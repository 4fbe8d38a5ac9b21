"""Event files for TensorBoard, which --tensorboard asks for.

tensorboardX writes them: it needs neither TensorBoard nor torch, so that they come from every backend.  All
figures are over training steps, those of epochs at the step that ended them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from minicnn import colours
from minicnn.app.experiment import Experiment
from minicnn.app.settings import Config
from minicnn.layers.conv2d import first_filters

FOLDER = "tensorboard"
FILTERS, COLUMNS, CELL = 64, 8, 24
"""Filters that are drawn, how many in a row, and the pixels of one's side."""


def check(config: Config) -> None:
    """Raise ValueError if event files are wanted and cannot be written here."""
    if config.tensorboard:
        _writer_class()


class Events:
    """Where the figures of a run go; without a writer, nowhere."""

    def __init__(self, writer: Any = None, loss: float = 0.0, images: float = 0) -> None:
        self._writer = writer
        self._before = loss, images

    @property
    def writes(self) -> bool:
        """Whether there is somebody to write to, who wants the loss of each batch."""
        return self._writer is not None

    def step(self, experiment: Experiment) -> None:
        """The loss of the batch that was just learnt from."""
        if self._writer is None:
            return
        loss, images = experiment.sums["loss"], experiment.sums["images"]
        before = self._before if self._before[1] < images else (0.0, 0)  # of this epoch, or of the last one
        self._before = loss, images
        self._add({"loss/batch": (loss - before[0]) / (images - before[1])}, experiment)

    def epoch(self, experiment: Experiment) -> None:
        """The history's last entry, and the first layer's filters."""
        if self._writer is None:
            return
        entry = experiment.history[-1]
        self._add({_tag(key): value for key, value in entry.items() if key != "seconds"}, experiment)
        found = first_filters(experiment.state_dict())
        if found is not None:
            grid = filter_grid(found[1])
            self._writer.add_image("filters", grid, experiment.optimizer.steps, dataformats="HWC")
        self._writer.flush()

    def report(self, experiment: Experiment, report: dict[str, Any], matrix: Path) -> None:
        """What came of the test, with the picture of the confusion matrix if it was drawn."""
        if self._writer is None:
            return
        figures = {
            "accuracy": report["accuracy"],
            "loss": report["loss"],
            "macro_f1": report["macro"]["f1"],
        }
        self._add({f"report/{name}": value for name, value in figures.items()}, experiment)
        if matrix.exists():
            from PIL import Image

            with Image.open(matrix) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            step = experiment.optimizer.steps
            self._writer.add_image("report/confusion_matrix", pixels, step, dataformats="HWC")

    def _add(self, figures: dict[str, float], experiment: Experiment) -> None:
        for tag, value in figures.items():
            self._writer.add_scalar(tag, value, experiment.optimizer.steps)


@contextmanager
def events(folder: Path, experiment: Experiment) -> Iterator[Events]:
    """Events below a run's folder, if the settings want them; of several processes, rank 0 writes them.

    What an interrupted run wrote of steps that are taken again is no longer shown.

    Raises: ValueError if tensorboardX is not installed
    """
    if not experiment.config.tensorboard or not experiment.group.is_first:
        yield Events()
        return
    writer = _writer_class()(
        str(folder / FOLDER), purge_step=experiment.optimizer.steps + 1,
        filename_suffix=f".{time.time_ns()}",  # else two within a second would be one file
    )  # fmt: skip
    try:
        yield Events(writer, experiment.sums["loss"], experiment.sums["images"])
    finally:
        writer.close()


def filter_grid(weight: np.ndarray) -> np.ndarray:
    """The filters (F,C,KH,KW) side by side, uint8 (H,W,3), each enlarged to about `CELL` pixels."""
    limit = colours.filter_limit(weight)
    shown = [colours.filter_pixels(one, limit) for one in weight[:FILTERS]]
    times = max(1, CELL // max(weight.shape[2:]))
    tiles = [np.pad(one.repeat(times, 0).repeat(times, 1), ((0, 2), (0, 2), (0, 0))) for one in shown]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)
    rows = [np.concatenate(tiles[start : start + COLUMNS], 1) for start in range(0, len(tiles), COLUMNS)]
    return np.concatenate(rows)


def _tag(key: str) -> str:
    """The tag of a key of the history: loss/train of train_loss."""
    part, _, figure = key.rpartition("_")
    return f"{figure}/{part}" if figure in ("loss", "accuracy") else key


def _writer_class() -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ValueError(
            f"--tensorboard needs tensorboardX, which cannot be imported ({error}): "
            "pip install 'minicnn[tensorboard]'"
        ) from None
    return SummaryWriter
