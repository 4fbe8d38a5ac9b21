"""The one epoch loop: train, judge, save, and stop cleanly when asked to."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from minicnn import distributed
from minicnn.app.command_line import Diverged, Interrupted
from minicnn.app.events import Events, events
from minicnn.app.experiment import READ_EVERY, Experiment
from minicnn.app.progress import Progress, duration, shown
from minicnn.app.run_folder import RunFolder
from minicnn.app.together import everywhere, of_first
from minicnn.text import percent, shell_word

if TYPE_CHECKING:
    from rich.console import Console


def begin(folder: RunFolder, experiment: Experiment, *, overwrite: bool) -> None:
    """Write the first checkpoint into an empty folder, or into one whose run may be overwritten."""
    if overwrite:
        folder.clear()
    folder.refuse_existing()
    folder.save(experiment)


def resume(folder: RunFolder, experiment: Experiment, console: Console) -> None:
    """Bring the experiment to where the folder's run stopped.

    Raises: CheckpointError if the checkpoint does not fit
    """
    saved = of_first(experiment.group, folder.load)
    with everywhere(experiment.group):
        experiment.restore(folder.checkpoint, saved)
    if experiment.done:
        console.print(f"all {experiment.epoch} epochs of {folder.path} are done already")
    else:
        console.print(f"going on at epoch {experiment.epoch + 1}, batch {experiment.batch + 1}")
    folder.save(experiment)


def train(folder: RunFolder, experiment: Experiment, console: Console) -> None:
    """Train all epochs that are left.

    Raises: Interrupted after SIGINT or SIGTERM, with a checkpoint of the step just done; in a group after
            the step in which all learn of it; Diverged, with the last good checkpoint kept
    """
    with _StopRequest() as stop, events(folder.path, experiment) as log:
        try:
            while not experiment.done:
                _train_epoch(folder, experiment, console, stop, log)
        except Diverged as error:
            raise Diverged(f"{error} The last good checkpoint is kept.") from None
        except Interrupted:
            folder.save(experiment)
            experiment.group.meet()  # none ends before rank 0 has written
            where = f"epoch {experiment.epoch + 1}, after batch {experiment.batch}"
            command = f"python -m minicnn.train --resume --out {shell_word(str(folder.path))}"
            raise Interrupted(f"interrupted in {where}; continue with:\n  {command}") from None


def _train_epoch(
    folder: RunFolder, experiment: Experiment, console: Console, stop: _StopRequest, log: Events
) -> None:
    config, batches = experiment.config, len(experiment.batches)
    title = f"epoch {experiment.epoch + 1}/{config.epochs}"
    saved_at = time.monotonic()
    stop.check()
    with Progress(console, title, batches, experiment.batch) as progress:
        for _ in experiment.steps(every=0 if log.writes else READ_EVERY):
            stop.check()
            log.step(experiment)
            show_progress(progress, experiment)
            if time.monotonic() - saved_at >= config.save_every:
                folder.save(experiment)
                saved_at = time.monotonic()
    with shown(console, f"{title}, testing") as show:

        def test_progress(done: int, total: int) -> None:
            experiment.group.meet()
            stop.check()
            show(done, total)

        best = experiment.finish_epoch(test_progress)
    log.epoch(experiment)
    if best:
        folder.save_best(experiment)
    folder.save(experiment)
    console.print(_epoch_line(title, experiment.history[-1], best and experiment.validation is not None))


def show_progress(progress: Progress, experiment: Experiment) -> None:
    """Show where the epoch under way stands."""
    sums, batches = experiment.sums, len(experiment.batches)
    done = experiment.epoch * batches + experiment.batch
    left = (experiment.config.epochs * batches - done) * sums["seconds"] / experiment.batch
    loss, accuracy = sums["loss"] / sums["images"], sums["correct"] / sums["images"]
    speed = f"{sums['images'] / sums['seconds']:,.0f} images/s"
    text = f"loss {loss:.4f}  accuracy {percent(accuracy, 2)}  {speed}  {duration(left)} left"
    progress.update(experiment.batch, batches, text)


def _epoch_line(title: str, entry: dict[str, Any], best: bool) -> str:
    parts = [
        f"{part}: loss {entry[f'{part}_loss']:.4f}, accuracy {percent(entry[f'{part}_accuracy'], 2)}"
        for part in ("train", "validation", "test")
        if f"{part}_loss" in entry
    ]
    speed = f"{duration(entry['seconds'])}, {entry['images_per_second']:,.0f} images/s"
    return f"{title}  {'  '.join(parts)}{' (best)' if best else ''}  {speed}"


class _StopRequest:
    """Remembers a SIGINT or SIGTERM, so that `check` raises Interrupted; a second one acts at once.

    In a group, `check` does so once all ranks know of it, and a second signal does nothing, since torchrun
    may send it for the first one.
    """

    def __init__(self) -> None:
        self.group = distributed.current()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.group.flag = False
        self._before = {
            number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._put_back()

    def check(self) -> None:
        if self.group.flagged:
            raise Interrupted

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.group.flag = True
        if self.group.size == 1:
            self._put_back()

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
