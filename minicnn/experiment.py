"""A model being trained: all state of a run, one step at a time, saved and restored bit by bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from minicnn import data, metrics, models, optim, schedules
from minicnn.checkpoint import Checkpoint, CheckpointError, check_tensors
from minicnn.config import Config
from minicnn.trainer import Trainer

IMAGES_AT_ONCE = 1000
"""Images that are normalised and predicted together in a test."""


class Diverged(ValueError):
    """Loss or weights are no longer finite; the message suggests what to change."""


class Experiment:
    """Model, optimizer and position of a run over a dataset.

    ``epoch`` whole epochs are done and ``batch`` batches of the next; ``sums`` add up that next one's
    loss, right answers, images and seconds; ``history`` has an entry for each epoch done.
    """

    def __init__(self, config: Config, dataset: data.Dataset) -> None:
        self.config, self.dataset = config, dataset
        channels, height, width = dataset.train.x.shape[1:]
        self.image_shape = (channels, height, width)
        self.model = models.create(
            config.model, in_channels=channels, num_classes=len(dataset.class_names),
            image_size=(height, width), backend=config.backend, seed=config.seed,
        )  # fmt: skip
        self.batches = data.Batches(
            dataset.train, config.batch_size, mean=dataset.mean, std=dataset.std, seed=config.seed,
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
        )  # fmt: skip
        self.epoch, self.batch = 0, 0
        self.sums = _no_sums()
        self.history: list[dict[str, Any]] = []
        self.best_accuracy = -1.0

    def steps(self) -> Iterator[None]:
        """Train to the end of the epoch under way, yielding after each step.

        Raises: Diverged on a loss that is NaN or infinite
        """
        batches = self.batches.epoch(self.epoch, start=self.batch)
        while True:
            start = time.perf_counter()
            pair = next(batches, None)
            if pair is None:
                return
            # An overflow shows in the loss, which is checked: no warnings from within.
            with np.errstate(over="ignore", invalid="ignore"):
                loss = self.trainer.step(*pair)
            if not math.isfinite(loss):
                raise self._diverged(f"the loss became {loss}")
            self.batch += 1
            self.sums["loss"] += loss * len(pair[1])
            self.sums["correct"] += self.trainer.correct
            self.sums["images"] += len(pair[1])
            self.sums["seconds"] += time.perf_counter() - start
            yield

    def finish_epoch(self, logits: np.ndarray) -> bool:
        """Record the epoch with its test logits (N,K); returns whether it is the best so far."""
        labels, sums = self.dataset.test.y, self.sums
        accuracy = metrics.accuracy(logits, labels)
        self.history.append(
            {
                "epoch": self.epoch + 1,
                "train_loss": sums["loss"] / sums["images"],
                "train_accuracy": sums["correct"] / sums["images"],
                "test_loss": metrics.cross_entropy(logits, labels),
                "test_accuracy": accuracy,
                "lr": self.schedule(self.optimizer.steps - 1),
                "seconds": round(sums["seconds"], 3),
                "images_per_second": round(sums["images"] / sums["seconds"], 1),
            }
        )
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, _no_sums()
        best = accuracy > self.best_accuracy
        self.best_accuracy = max(accuracy, self.best_accuracy)
        return best

    def test_logits(self, check: Callable[[], None] = lambda: None) -> np.ndarray:
        """Logits (N,K) of the test images; ``check`` is called now and then, and may raise."""
        x, mean, std = self.dataset.test.x, self.dataset.mean, self.dataset.std
        return predict_images(self.model, x, mean, std, check)

    def checkpoint(self) -> Checkpoint:
        """All state, copied.  Raises Diverged if a weight is not finite, so that none such is saved."""
        state = self.model.state_dict()
        for name, array in state.items():
            if not np.isfinite(array).all():
                raise self._diverged(f"{name} is no longer finite")
        return Checkpoint(
            config=asdict(self.config), class_names=self.dataset.class_names, image_shape=self.image_shape,
            mean=self.dataset.mean.tolist(), std=self.dataset.std.tolist(),
            fingerprint=self.dataset.fingerprint, epoch=self.epoch, batch=self.batch,
            sums=dict(self.sums), history=list(self.history), best_accuracy=self.best_accuracy,
            optimizer_steps=self.optimizer.steps, generators=self.model.generator_state(),
            model=state, optimizer=self.optimizer.state_dict(self.model),
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
                f"{path}: the data are not those that the run began with ({self.dataset.name})"
            )
        load_weights(path, self.model, saved)
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


def load_weights(path: Path, model: Any, saved: Checkpoint) -> None:
    """Load a checkpoint's weights.  Raises CheckpointError naming the file and the tensor that differs."""
    check_tensors(path, saved.model, model.state_dict())
    model.load_state_dict(saved.model)


def predict_images(
    model: Any, x: np.ndarray, mean: Any, std: Any, check: Callable[[], None] = lambda: None,
    batch_size: int = 256,
) -> np.ndarray:  # fmt: skip
    """Logits (N,K) of uint8 images (N,C,H,W), normalised a part at a time."""
    parts = []
    for start in range(0, len(x), IMAGES_AT_ONCE):
        check()
        part = data.normalize(x[start : start + IMAGES_AT_ONCE], mean, std)
        parts.append(model.predict(part, batch_size=batch_size))
    return np.concatenate(parts)


def _no_sums() -> dict[str, float]:
    return {"loss": 0.0, "correct": 0, "images": 0, "seconds": 0.0}


def _short_list(names: list[str]) -> str:
    return f"{len(names)}: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
