"""A model in training: made from the settings, moved on step by step, saved and restored bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicnn import data, distributed, metrics, models, optim, schedules
from minicnn.app.command_line import Diverged
from minicnn.app.needs import memory_of_a_step
from minicnn.app.position import check_position
from minicnn.app.prediction import NotFinite, predict_images
from minicnn.app.settings import Config
from minicnn.backends.image_source import ImageSource, image_source
from minicnn.calibration import fit_temperature
from minicnn.checkpoint import Checkpoint, CheckpointError, check_tensors
from minicnn.data.progress import OnProgress, ignore
from minicnn.data.split import balanced_class_weight
from minicnn.distributed.shards import Shards
from minicnn.ema import WeightAverage
from minicnn.graph.cast import input_dtype
from minicnn.trainer import Trainer

READ_EVERY = 0.25
"""Seconds after which the sums of a device that computes by itself are read: that waits for the device."""


class Experiment:
    """Model, optimizer and position of a run over a dataset.

    ``epoch`` whole epochs are done and ``batch`` batches of the next; ``sums`` add up that next one's
    loss, right answers, images and seconds, as they were last read; ``history`` has an entry for each epoch
    done.  The ``validation`` images decide which epoch is the best; where they are None, the last one is.
    """

    def __init__(self, config: Config, dataset: data.Dataset) -> None:
        self.config, self.dataset = config, dataset
        self.image_shape = channels, height, width = dataset.train.shape
        self.model = models.create(
            config.model, in_channels=channels, num_classes=len(dataset.class_names),
            image_size=(height, width), backend=config.backend, seed=config.seed,
            precision=config.precision,
        )  # fmt: skip
        if config.freeze:
            self.model.freeze(*config.freeze.split(","))
            if not self.model.is_trainable():
                raise ValueError(f"--freeze {config.freeze} leaves nothing to train")
        self.validation = dataset.validation if config.validation else None
        for flag, wanted in (("--early-stop", config.early_stop), ("--temperature", config.temperature)):
            if wanted and self.validation is None:
                raise ValueError(f"{flag}: expected validation images, got none")
        self.group = distributed.current()
        self._sources = self._image_sources()
        self.batches = data.Batches(
            dataset.train, config.batch_size, mean=dataset.mean, std=dataset.std, seed=config.seed,
            augment=config.augment_options(), num_classes=len(dataset.class_names),
            backend=self.model.bound(), data_on=self._sources[id(dataset.train.x)],
            part=Shards(config.shards, self.group).part,
            dtype=input_dtype(self.model.graph(training=True, fuse=not config.no_fuse), self.model.dtype),
        )  # fmt: skip
        self.optimizer = optim.create(config.optimizer, config.lr, **config.optimizer_options())
        steps = config.epochs * len(self.batches)
        self.schedule = schedules.create(
            config.schedule, lr=config.lr, total_steps=steps, warmup=config.warmup
        )
        self.average = WeightAverage(self.model, config.ema) if config.ema else None
        self.trainer = Trainer(
            self.model, self.optimizer, schedule=self.schedule, clip_norm=config.clip_norm,
            label_smoothing=config.label_smoothing, fuse=not config.no_fuse, shards=config.shards,
            reduce=config.reduce, sync_batch_norm=config.sync_batch_norm, average=self.average,
            capture=not config.no_capture,
            class_weight=_class_weight(dataset.train.y, len(dataset.class_names), config),
        )  # fmt: skip
        self.trainer.check_batches(self.batches.sizes())
        self.epoch, self.batch = 0, 0
        self.sums = _no_sums()
        self._unread = _Unread(0, 0, 0.0)
        self.history: list[dict[str, Any]] = []

    def _image_sources(self) -> dict[int, ImageSource]:
        """Of the images that every epoch reads.  Those that share an array share a source."""
        beside = memory_of_a_step(self.config, self.dataset) if self.config.backend == "cuda" else 0
        sources: dict[int, ImageSource] = {}
        tested = self.dataset.test if self.config.test_every else None
        for images in (self.dataset.train, self.validation, tested):
            if images is not None and id(images.x) not in sources:
                sources[id(images.x)] = image_source(
                    self.model.bound(), images.x, self.config.data_on, beside=beside
                )
        return sources

    def steps(self, *, every: float = READ_EVERY) -> Iterator[None]:
        """Train to the end of the epoch under way, yielding after each step.

        On the CPU, ``sums`` are those of the present step; on cuda, those of a step not much longer ago
        than ``every`` seconds.

        Raises: Diverged on a loss that is NaN or infinite, ValueError on a label that is no class
        """
        batches, tally = self.batches.epoch(self.epoch, start=self.batch), self.trainer.tally
        tally.begin(self.sums["loss"], int(self.sums["correct"]))
        self._unread = _Unread(self.batch, 0, 0.0)
        read_at = -math.inf
        while True:
            start = time.perf_counter()
            pair = next(batches, None)
            if pair is None:
                self.read_sums()
                return
            # The loss shows an overflow and is checked below, so NumPy need not warn of it.
            with np.errstate(over="ignore", invalid="ignore"):
                labels = batches.batch_labels
                self.trainer.advance(*pair, meanwhile=batches.prepare, batch_labels=labels)
            self.batch += 1
            self._unread.images += len(labels)
            now = time.perf_counter()
            self._unread.seconds += now - start
            if tally.there is None or now - read_at >= every:
                self.read_sums()
                read_at = time.perf_counter()
            yield

    def read_sums(self) -> None:
        """Bring ``sums`` to the present step.  Raises Diverged and ValueError as `steps` does."""
        unread = self._unread
        if not unread.images:
            return
        start = time.perf_counter()
        totals = self.trainer.tally.read()
        if totals.diverged is not None:
            step, loss = totals.diverged
            raise self._diverged(f"the loss became {loss}", unread.first_batch + step)
        self.sums["loss"], self.sums["correct"] = totals.loss, totals.correct
        self.sums["images"] += unread.images
        self.sums["seconds"] += unread.seconds + time.perf_counter() - start
        unread.images, unread.seconds = 0, 0.0

    def finish_epoch(self, progress: OnProgress = ignore) -> bool:
        """Judge by the validation images and record the epoch; returns whether it is the best so far.

        ``progress`` is called now and then, and may raise: the epoch is not finished then.
        """
        sums = self.sums
        entry = {
            "epoch": self.epoch + 1,
            "train_loss": sums["loss"] / sums["images"],
            "train_accuracy": sums["correct"] / sums["images"],
        }
        if self.validation is not None:
            logits = self.logits(self.validation, progress)
            entry |= _scores("validation", logits, self.validation.y)
            if self.config.temperature:
                entry["temperature"] = fit_temperature(logits, self.validation.y)
        if self.config.test_every and entry["epoch"] % self.config.test_every == 0:
            entry |= _scores("test", self.logits(self.dataset.test, progress), self.dataset.test.y)
        entry |= {
            "lr": self.schedule(self.optimizer.steps - 1),
            "seconds": round(sums["seconds"], 3),
            "images_per_second": round(sums["images"] / sums["seconds"], 1),
        }
        self.history.append(entry)
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, _no_sums()
        return self.best is entry

    @property
    def best(self) -> dict[str, Any] | None:
        """The history's entry of the best epoch so far: None before the first has ended.

        It has the highest accuracy of the validation images, and of equal ones the lowest loss; without
        validation images it is the last.
        """
        if self.validation is None or not self.history:
            return self.history[-1] if self.history else None
        return max(self.history, key=lambda e: (e["validation_accuracy"], -e["validation_loss"]))

    @property
    def best_accuracy(self) -> float:
        """Of the validation images after the best epoch; -1 before the first, and where there are none."""
        return self.best.get("validation_accuracy", -1.0) if self.best else -1.0

    @property
    def stopped_early(self) -> bool:
        """Whether the validation loss has not fallen below its lowest for --early-stop epochs."""
        if not self.config.early_stop or not self.history:
            return False
        losses = [entry["validation_loss"] for entry in self.history]
        return len(losses) - 1 - losses.index(min(losses)) >= self.config.early_stop

    @property
    def temperature(self) -> float | None:
        """What the best epoch's logits are to be divided by, with --temperature."""
        return self.best.get("temperature") if self.best else None

    @property
    def done(self) -> bool:
        """Whether no epoch is left to train."""
        return self.epoch >= self.config.epochs or self.stopped_early

    def logits(self, images: data.Images, progress: OnProgress = ignore) -> np.ndarray:
        """Logits (N,K) of the weights that predict; ``progress`` is called now and then, and may raise."""
        with self._averaged():
            return self._predicted(images, progress)

    def best_logits(
        self, path: Path, saved: Checkpoint, images: data.Images, progress: OnProgress = ignore
    ) -> np.ndarray:
        """Logits (N,K) of a checkpoint of this run, read from ``path``.  Training cannot go on after this.

        Raises: CheckpointError naming the file if it does not fit
        """
        load_weights(path, self.model, saved.model)
        return self._predicted(images, progress)

    def state_dict(self) -> dict[str, np.ndarray]:
        """The weights that predict: the average, where there is one."""
        with self._averaged():
            return self.model.state_dict()

    def _averaged(self) -> AbstractContextManager[None]:
        return self.average.applied() if self.average else nullcontext()

    def _predicted(self, images: data.Images, progress: OnProgress) -> np.ndarray:
        mean, std, config = self.dataset.mean, self.dataset.std, self.config
        try:
            return predict_images(
                self.model, images, mean, std, progress, tta=config.tta, fuse=not config.no_fuse,
                group=self.group, source=self._sources.get(id(images.x)),
            )  # fmt: skip
        except NotFinite as error:
            raise self._diverged(str(error)) from None

    def checkpoint(self) -> Checkpoint:
        """All state, copied.  Raises Diverged if a weight is not finite, so that none such is saved."""
        self.read_sums()
        state, training = self.state_dict(), self.model.state_dict() if self.average else {}
        for name, array in (state | training).items():
            if not np.isfinite(array).all():
                raise self._diverged(f"{name} is no longer finite")
        return Checkpoint(
            config=asdict(self.config), class_names=self.dataset.class_names, image_shape=self.image_shape,
            mean=self.dataset.mean.tolist(), std=self.dataset.std.tolist(),
            fingerprint=self.dataset.fingerprint, epoch=self.epoch, batch=self.batch,
            sums=dict(self.sums), history=list(self.history), best_accuracy=self.best_accuracy,
            optimizer_steps=self.optimizer.steps, generators=self.model.generator_state(),
            split=self.dataset.record.as_json() if self.dataset.record else {},
            model=state, training=training, optimizer=self.optimizer.state_dict(self.model),
        )  # fmt: skip

    def restore(self, path: Path, saved: Checkpoint) -> None:
        """Go on from a checkpoint, which was read from ``path``.

        Raises: CheckpointError naming the file if it is of other data, another model or no such run
        """
        self._check_data(path, saved)
        try:
            judged = {"test": self.config.test_every or 0, "validation": int(self.validation is not None)}
            check_position(saved, self.batches, judged=judged, averages=self.average is not None)
            load_weights(path, self.model, saved.model)
            if self.average:
                self.average.load(saved.model, saved.optimizer_steps)
                load_weights(path, self.model, saved.training)
            self.optimizer.load_state_dict(saved.optimizer, self.model, saved.optimizer_steps)
            self.model.set_generator_state(saved.generators)
        except CheckpointError:
            raise
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error
        self.epoch, self.batch, self.sums = saved.epoch, saved.batch, dict(saved.sums)
        self.history = list(saved.history)

    def _check_data(self, path: Path, saved: Checkpoint) -> None:
        """Raise CheckpointError unless the checkpoint is of a run over this dataset."""
        if saved.class_names != self.dataset.class_names:
            expected = _short_list(saved.class_names)
            raise CheckpointError(
                f"{path}: expected classes {expected}, got {_short_list(self.dataset.class_names)}"
            )
        if saved.fingerprint != self.dataset.fingerprint:
            raise CheckpointError(
                f"{path}: the data are not those that the run began with: expected {self.dataset.name} "
                f"with fingerprint {saved.fingerprint[:12]}, got {self.dataset.fingerprint[:12]}"
            )

    def _diverged(self, what: str, batch: int | None = None) -> Diverged:
        clip = "" if self.config.clip_norm else ", set --clip-norm 1"
        return Diverged(
            f"training diverged in epoch {self.epoch + 1}, batch {batch or self.batch + 1}: {what}. "
            f"Try a lower --lr (it was {self.config.lr:g}){clip}, or check the data."
        )


@dataclass
class _Unread:
    """What has come since the sums were read: images, seconds, and the batch at which the tally began."""

    first_batch: int
    images: int
    seconds: float


def load_weights(path: Path, model: Any, tensors: dict[str, np.ndarray]) -> None:
    """Load weights of a checkpoint.  Raises CheckpointError naming the file and the tensor that differs."""
    check_tensors(path, tensors, model.state_dict())
    model.load_state_dict(tensors)


def _scores(part: str, logits: np.ndarray, y: NDArray[np.int64]) -> dict[str, float]:
    loss, accuracy = metrics.cross_entropy(logits, y), metrics.accuracy(logits, y)
    return {f"{part}_loss": loss, f"{part}_accuracy": accuracy}


def _class_weight(y: NDArray[np.int64], num_classes: int, config: Config) -> NDArray[np.float64] | None:
    """The weights (K,) of --class-weight, if any.

    Raises: ValueError where an image of a common class would be worth more as one of a rare class: the loss
            weighs the smoothed label, whose share s/K of each other class can outweigh the rest
    """
    if config.class_weight != "balanced":
        return None
    weight = balanced_class_weight(y, num_classes)
    share = config.label_smoothing / num_classes
    most = (1 - config.label_smoothing + share) / share if share else np.inf
    if weight.max() >= most * weight.min():
        raise ValueError(
            f"--class-weight balanced with --label-smoothing {config.label_smoothing:g}: expected the "
            f"largest of {num_classes} classes to have less than {most:.1f} times the images of the "
            f"smallest, got {weight.max() / weight.min():.1f} times; smooth less"
        )
    return weight


def _no_sums() -> dict[str, float]:
    return {"loss": 0.0, "correct": 0, "images": 0, "seconds": 0.0}


def _short_list(names: list[str]) -> str:
    return f"{len(names)}: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
