"""The folder of a run: the names of its files, and how they are written and read.

At the end of an epoch the files are written in the order best.safetensors, filters.safetensors,
checkpoint.safetensors, metrics.jsonl. A run that is killed in between goes on from the older checkpoint
and writes the same again; metrics.jsonl always follows from the checkpoint's history.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from minicnn import checkpoint
from minicnn.app import provenance
from minicnn.app.events import FOLDER
from minicnn.app.experiment import Experiment
from minicnn.app.filter_history import FILTERS, keep
from minicnn.app.known_paths import CONFIG, without_folders
from minicnn.app.settings import Config
from minicnn.checkpoint import Checkpoint, CheckpointError
from minicnn.files import delete_leftovers, write_json, write_json_lines
from minicnn.saved_model import check_model

CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"
METRICS, REPORT, PAGE = "metrics.jsonl", "report.json", "report.html"
SKIPPED = "skipped.txt"
PLOTS = ("curves.png", "confusion_matrix.png", "mistakes.png", "reliability.png", "filters.png")
_FILES = (BEST, METRICS, CONFIG, REPORT, PAGE, FILTERS, *PLOTS, SKIPPED, CHECKPOINT)


class RunFolder:
    """The folder at ``path``, which need not be there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint, self.best = path / CHECKPOINT, path / BEST

    def holds_run(self) -> bool:
        """Whether a run has begun here."""
        return self.checkpoint.exists()

    def refuse_existing(self) -> None:
        """Raise ValueError if the folder holds a run already."""
        if self.holds_run():
            raise ValueError(
                f"{self.path} already holds a run: "
                "--resume continues it, --overwrite deletes it, another --out keeps both"
            )

    def saved_config(self) -> Config:
        """The settings of the run that is here.

        Raises: CheckpointError if its checkpoint is not sound, or of a run that test images judged
        """
        saved = checkpoint.load(self.checkpoint)
        if "validation" not in saved.config:
            raise CheckpointError(
                f"{self.checkpoint}: this run began when test images chose the best epoch, and cannot go "
                "on: start it anew in another --out; predict and evaluate still take its checkpoints"
            )
        check_model(self.checkpoint, saved)
        return Config.of_checkpoint(self.checkpoint, saved)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if it is not there, and hold it for this process.

        The system lets go of it even if the process is killed.

        What a killed run left half written is deleted.

        Raises: OSError if another process holds it, or if the folder cannot be made or written to
        """
        from filelock import FileLock, Timeout

        make_folder(self.path)
        file = self.path / ".lock"
        if file.is_symlink() or file.is_fifo():
            raise OSError(f"cannot write to {self.path}: {file.name} is no file of its own")
        lock = FileLock(file, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise OSError(
                f"{self.path} is in use by another run: wait until it ends, or choose another --out"
            ) from None
        except OSError as error:
            raise OSError(f"cannot write to {self.path}: {error.strerror}") from error
        try:
            delete_leftovers(self.path, _FILES)
            yield
        finally:
            lock.release()

    def clear(self) -> None:
        """Delete the files of a run, the checkpoint last."""
        events = self.path / FOLDER
        for file in () if events.is_symlink() else events.glob("events.out.tfevents.*"):
            file.unlink()
        for name in _FILES:
            (self.path / name).unlink(missing_ok=True)

    def load(self) -> Checkpoint:
        """Where the run stopped.  Raises CheckpointError if the checkpoint is not sound."""
        return checkpoint.load(self.checkpoint)

    def load_best(self) -> Checkpoint:
        """The best weights of the run.  Raises CheckpointError if they are not sound."""
        return checkpoint.load(self.best)

    def save(self, experiment: Experiment) -> None:
        """Write where the run stands: filters, checkpoint, metrics and settings."""
        state = experiment.checkpoint()
        keep(self.path / FILTERS, experiment)
        checkpoint.save(self.checkpoint, state)
        write_json_lines(self.path / METRICS, state.history)
        computed = provenance.about(experiment.model.backend) | {"processes": experiment.group.size}
        write_json(self.path / CONFIG, {**asdict(experiment.config), **computed})

    def save_best(self, experiment: Experiment) -> None:
        """Write the present weights as the best ones, without what only the training needs.

        It may be passed on, so of paths it has the last part alone.
        """
        state = experiment.checkpoint()
        config = without_folders(state.config)
        checkpoint.save(self.best, replace(state, config=config, optimizer={}, training={}))


class UnwrittenFolder(RunFolder):
    """The folder of a run as those ranks have it that do not write."""

    def save(self, experiment: Experiment) -> None:
        """Rank 0 writes."""

    def save_best(self, experiment: Experiment) -> None:
        """Rank 0 writes."""


def make_folder(path: Path) -> None:
    """Make a folder and its parents; OSError naming it and the reason if that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make the folder {path}: {error.strerror}") from error
