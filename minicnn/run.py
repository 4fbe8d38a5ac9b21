"""A run in its folder: the epoch loop, with a checkpoint that survives a kill at any moment.

The order of writing at the end of an epoch is best.safetensors, checkpoint.safetensors,
metrics.jsonl.  A run killed in between goes on from the older checkpoint and writes the same again;
metrics.jsonl always follows from the checkpoint's history.
"""

from __future__ import annotations

import signal
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any, Self

from rich.console import Console

from minicnn import checkpoint, plots, report
from minicnn.cli import Interrupted
from minicnn.experiment import Experiment
from minicnn.files import write_json, write_json_lines
from minicnn.progress import Progress, duration

CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"
METRICS, CONFIG = "metrics.jsonl", "config.json"
PLOTS = ("curves.png", "confusion_matrix.png", "mistakes.png", "filters.png")
_FILES = (BEST, METRICS, CONFIG, "report.json", *PLOTS, CHECKPOINT)


def refuse_existing(folder: Path) -> None:
    """Raise ValueError if the folder holds a run already."""
    if (folder / CHECKPOINT).exists():
        raise ValueError(
            f"{folder} already holds a run: "
            "--resume continues it, --overwrite deletes it, another --out keeps both"
        )


class Run:
    """An experiment and the folder it is kept in."""

    def __init__(self, folder: Path, experiment: Experiment, console: Console) -> None:
        self.folder, self.experiment, self.console = folder, experiment, console
        self._saved_at = time.monotonic()

    def start(self, *, overwrite: bool) -> None:
        """Begin in an empty folder, or in one whose run may be overwritten."""
        if overwrite:
            for name in _FILES:
                (self.folder / name).unlink(missing_ok=True)
        refuse_existing(self.folder)
        self._save()

    def resume(self) -> None:
        """Go on from the folder's checkpoint.  Raises CheckpointError if it does not fit."""
        path, experiment = self.folder / CHECKPOINT, self.experiment
        experiment.restore(path, checkpoint.load(path))
        if experiment.done:
            self.console.print(f"all {experiment.epoch} epochs of {self.folder} are done already")
        else:
            self.console.print(f"going on at epoch {experiment.epoch + 1}, batch {experiment.batch + 1}")
        self._save()

    def train(self) -> None:
        """Train all epochs that are left.

        Raises: Interrupted after SIGINT or SIGTERM, with a checkpoint of the step just done;
                Diverged, with the last good checkpoint kept
        """
        with _StopRequest() as stop:
            try:
                while not self.experiment.done:
                    self._train_epoch(stop)
            except Interrupted:
                self._save()
                where = f"epoch {self.experiment.epoch + 1}, after batch {self.experiment.batch}"
                command = f"python -m minicnn.train --resume --out {self.folder}"
                raise Interrupted(f"interrupted in {where}; continue with:\n  {command}") from None

    def finish(self) -> None:
        """Write and print the report on the final weights, and draw the plots."""
        experiment, dataset = self.experiment, self.experiment.dataset
        logits = experiment.test_logits()
        result = report.make(experiment.model, logits, dataset.test.y, dataset.class_names)
        report.write(self.folder, result, dataset.test.x, dataset.test.y, logits)
        config = experiment.config
        plots.curves(self.folder / "curves.png", experiment.history, f"{config.model} on {config.dataset}")
        name, weight = _first_filters(experiment.state_dict())
        if weight is not None:
            plots.filters(self.folder / "filters.png", weight, name)
        report.show(self.console, result)
        if experiment.stopped_early:
            patience = f"for {config.early_stop} epochs"
            self.console.print(f"stopped early: the validation loss has not fallen {patience}")
        part = experiment.judge
        judged = [entry for entry in experiment.history if f"{part}_accuracy" in entry]
        best = max(judged, key=lambda entry: entry[f"{part}_accuracy"])
        accuracy = f"{100 * best[f'{part}_accuracy']:.2f} % of the {part} images"
        self.console.print(f"best: {accuracy} after epoch {best['epoch']}, in {self.folder / BEST}")
        drawn = [str(self.folder / name) for name in PLOTS if (self.folder / name).exists()]
        self.console.print(f"plots: {', '.join(drawn)}")

    def _train_epoch(self, stop: _StopRequest) -> None:
        experiment = self.experiment
        epochs, batches = experiment.config.epochs, len(experiment.batches)
        title = f"epoch {experiment.epoch + 1}/{epochs}"
        stop.check()
        with Progress(self.console, title, batches, experiment.batch) as progress:
            for _ in experiment.steps():
                stop.check()
                self._show(progress)
                if time.monotonic() - self._saved_at >= experiment.config.save_every:
                    self._save()
        best = experiment.finish_epoch(stop.check)
        if best:
            checkpoint.save(self.folder / BEST, replace(experiment.checkpoint(), optimizer={}, training={}))
        self._save()
        self.console.print(_epoch_line(title, experiment.history[-1], best))

    def _show(self, progress: Progress) -> None:
        experiment, sums = self.experiment, self.experiment.sums
        batches = len(experiment.batches)
        done = experiment.epoch * batches + experiment.batch
        progress.update(
            experiment.batch,
            loss=sums["loss"] / sums["images"],
            accuracy=sums["correct"] / sums["images"],
            images_per_second=sums["images"] / sums["seconds"],
            seconds_left=(experiment.config.epochs * batches - done) * sums["seconds"] / experiment.batch,
        )

    def _save(self) -> None:
        state = self.experiment.checkpoint()
        checkpoint.save(self.folder / CHECKPOINT, state)
        write_json_lines(self.folder / METRICS, state.history)
        computed_by = self.experiment.model.backend.label
        write_json(self.folder / CONFIG, {**asdict(self.experiment.config), "computed_by": computed_by})
        self._saved_at = time.monotonic()


class _StopRequest:
    """Turns the first SIGINT or SIGTERM into a request that `check` answers; a second one acts at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {
            number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._put_back()

    def check(self) -> None:
        if self.asked:
            raise Interrupted

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        self._put_back()

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _epoch_line(title: str, entry: dict[str, Any], best: bool) -> str:
    parts = [
        f"{part}: loss {entry[f'{part}_loss']:.4f}, accuracy {100 * entry[f'{part}_accuracy']:.2f} %"
        for part in ("train", "validation", "test")
        if f"{part}_loss" in entry
    ]
    speed = f"{duration(entry['seconds'])}, {entry['images_per_second']:,.0f} images/s"
    return f"{title}  {'  '.join(parts)}{' (best)' if best else ''}  {speed}"


def _first_filters(state: dict[str, Any]) -> tuple[str, Any]:
    for name, array in state.items():
        if array.ndim == 4:
            return name.removesuffix(".weight"), array
    return "", None
