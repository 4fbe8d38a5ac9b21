"""A model in training: made from the settings, moved on step by step, saved and restored bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicnn import data, metrics, models, optim, schedules
from minicnn.app.prediction import predict_images
from minicnn.app.settings import Config
from minicnn.checkpoint import Checkpoint, CheckpointError, check_tensors
from minicnn.data.progress import OnProgress, ignore
from minicnn.data.split import balanced_class_weight, stratified_split
from minicnn.ema import WeightAverage
from minicnn.trainer import Trainer

VALIDATION_SHARE = 0.1
"""The share of the training images that early stopping holds out to judge by."""


class Diverged(ValueError):
    """Loss or weights are no longer finite; the message suggests what to change."""


class Experiment:
    """Model, optimizer and position of a run over a dataset.

    ``epoch`` whole epochs are done and ``batch`` batches of the next; ``sums`` add up that next one's
    loss, right answers, images and seconds; ``history`` has an entry for each epoch done.  ``judge``,
    "test" or "validation", says which images' accuracy decides whether an epoch is the best.
    """

    def __init__(self, config: Config, dataset: data.Dataset) -> None:
        self.config, self.dataset = config, dataset
        channels, height, width = dataset.train.x.shape[1:]
        self.image_shape = (channels, height, width)
        self.model = models.create(
            config.model, in_channels=channels, num_classes=len(dataset.class_names),
            image_size=(height, width), backend=config.backend, seed=config.seed,
        )  # fmt: skip
        if config.freeze:
            self.model.freeze(*config.freeze.split(","))
            if not self.model.is_trainable():
                raise ValueError(f"--freeze {config.freeze} leaves nothing to train")
        train, self.validation = _held_out(dataset.train, config)
        self.judge = "test" if self.validation is None else "validation"
        self.batches = data.Batches(
            train, config.batch_size, mean=dataset.mean, std=dataset.std, seed=config.seed,
            augment=config.augment_options(), num_classes=len(dataset.class_names),
        )  # fmt: skip
        self.optimizer = optim.create(config.optimizer, config.lr, **config.optimizer_options())
        steps = config.epochs * len(self.batches)
        self.schedule = schedules.create(
            config.schedule, lr=config.lr, total_steps=steps, warmup=config.warmup
        )
        self.trainer = Trainer(
            self.model, self.optimizer, schedule=self.schedule, clip_norm=config.clip_norm,
            label_smoothing=config.label_smoothing, fuse=not config.no_fuse,
            class_weight=_class_weight(train.y, len(dataset.class_names), config),
        )  # fmt: skip
        self.average = WeightAverage(self.model, config.ema) if config.ema else None
        self.epoch, self.batch = 0, 0
        self.sums = _no_sums()
        self.history: list[dict[str, Any]] = []
        self.best_accuracy = -1.0
        self._tested: np.ndarray | None = None

    def steps(self) -> Iterator[None]:
        """Train to the end of the epoch under way, yielding after each step.

        Raises: Diverged on a loss that is NaN or infinite
        """
        self._tested = None
        batches = self.batches.epoch(self.epoch, start=self.batch)
        while True:
            start = time.perf_counter()
            pair = next(batches, None)
            if pair is None:
                return
            # The loss shows an overflow and is checked below, so NumPy need not warn of it.
            with np.errstate(over="ignore", invalid="ignore"):
                loss = self.trainer.step(*pair)
            if not math.isfinite(loss):
                raise self._diverged(f"the loss became {loss}")
            if self.average:
                self.average.update()
            self.batch += 1
            self.sums["loss"] += loss * len(pair[1])
            self.sums["correct"] += self.trainer.correct
            self.sums["images"] += len(pair[1])
            self.sums["seconds"] += time.perf_counter() - start
            yield

    def finish_epoch(self, progress: OnProgress = ignore) -> bool:
        """Test, if it is time to, and record the epoch; returns whether it is the best so far.

        ``progress`` is called now and then, and may raise: the epoch is not finished then.
        """
        sums = self.sums
        entry = {
            "epoch": self.epoch + 1,
            "train_loss": sums["loss"] / sums["images"],
            "train_accuracy": sums["correct"] / sums["images"],
        }
        if self.validation is not None:
            entry |= _scores("validation", self._logits(self.validation, progress), self.validation.y)
        if self._tests_after(entry):
            entry |= _scores("test", self.test_logits(progress), self.dataset.test.y)
        entry |= {
            "lr": self.schedule(self.optimizer.steps - 1),
            "seconds": round(sums["seconds"], 3),
            "images_per_second": round(sums["images"] / sums["seconds"], 1),
        }
        self.history.append(entry)
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, _no_sums()
        accuracy = entry.get(f"{self.judge}_accuracy", -1.0)
        best = accuracy > self.best_accuracy
        self.best_accuracy = max(accuracy, self.best_accuracy)
        return best

    @property
    def stopped_early(self) -> bool:
        """Whether the validation loss has not fallen below its lowest for --early-stop epochs."""
        return self._stops_after(self.history)

    def _stops_after(self, history: list[dict[str, Any]]) -> bool:
        if not self.config.early_stop or not history:
            return False
        losses = [entry["validation_loss"] for entry in history]
        return len(losses) - 1 - losses.index(min(losses)) >= self.config.early_stop

    @property
    def done(self) -> bool:
        """Whether no epoch is left to train."""
        return self.epoch >= self.config.epochs or self.stopped_early

    def test_logits(self, progress: OnProgress = ignore) -> np.ndarray:
        """Logits (N,K) of the test images; ``progress`` is called now and then, and may raise.

        They are kept until the next step: the report needs those of the last epoch's test again.
        """
        if self._tested is None:
            self._tested = self._logits(self.dataset.test, progress)
        return self._tested

    def state_dict(self) -> dict[str, np.ndarray]:
        """The weights that predict: the average, where there is one."""
        with self._averaged():
            return self.model.state_dict()

    def _tests_after(self, entry: dict[str, Any]) -> bool:
        """Whether the epoch of this entry ends with a test: each Nth does, and the last."""
        number, every = entry["epoch"], self.config.test_every
        last = number == self.config.epochs or self._stops_after([*self.history, entry])
        return last or number % every == 0

    def _averaged(self) -> AbstractContextManager[None]:
        return self.average.applied() if self.average else nullcontext()

    def _logits(self, images: data.Images, progress: OnProgress) -> np.ndarray:
        mean, std = self.dataset.mean, self.dataset.std
        with self._averaged():
            return predict_images(
                self.model, images.x, mean, std, progress, tta=self.config.tta, fuse=not self.config.no_fuse
            )

    def checkpoint(self) -> Checkpoint:
        """All state, copied.  Raises Diverged if a weight is not finite, so that none such is saved."""
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
            model=state, training=training, optimizer=self.optimizer.state_dict(self.model),
        )  # fmt: skip

    def restore(self, path: Path, saved: Checkpoint) -> None:
        """Go on from a checkpoint, which was read from ``path``.

        Raises: CheckpointError naming the file if it is of other data or another model
        """
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
        self._tested = None
        load_weights(path, self.model, saved.model)
        if self.average and saved.training:
            self.average.load(saved.model, saved.optimizer_steps)
            load_weights(path, self.model, saved.training)
        try:
            self.optimizer.load_state_dict(saved.optimizer, self.model, saved.optimizer_steps)
            self.model.set_generator_state(saved.generators)
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"{path}: {error}") from error
        self.epoch, self.batch, self.sums = saved.epoch, saved.batch, dict(saved.sums)
        self.history, self.best_accuracy = list(saved.history), saved.best_accuracy

    def _diverged(self, what: str) -> Diverged:
        clip = "" if self.config.clip_norm else ", set --clip-norm 1"
        return Diverged(
            f"training diverged in epoch {self.epoch + 1}, batch {self.batch + 1}: {what}. "
            f"Try a lower --lr (it was {self.config.lr:g}){clip}, or check the data. "
            "The last good checkpoint is kept."
        )


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


def _held_out(train: data.Images, config: Config) -> tuple[data.Images, data.Images | None]:
    """The images to learn from and, for early stopping, a stratified part that is held out."""
    if not config.early_stop:
        return train, None
    learnt, held = stratified_split(train.y, VALIDATION_SHARE, config.seed)
    if not len(held):
        raise ValueError("--early-stop: expected a class of 2 training images at least, to hold one out")
    return train.subset(learnt), train.subset(held)


def _no_sums() -> dict[str, float]:
    return {"loss": 0.0, "correct": 0, "images": 0, "seconds": 0.0}


def _short_list(names: list[str]) -> str:
    return f"{len(names)}: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
