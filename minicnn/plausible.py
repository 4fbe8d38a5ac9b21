"""Whether what a checkpoint says of a run can be so: numbers within their ranges, and parts that agree.

The types of the fields have been checked before, by `minicnn.schema`.  Whoever writes a file can also make
its checksum right, so nothing that a checkpoint says is believed only because the file is intact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn.calibration import HIGHEST, LOWEST
from minicnn.schema import short

if TYPE_CHECKING:
    from minicnn.checkpoint import Checkpoint

_MOST = 1 << 40
"""The largest count of steps, batches or images that is believed."""

_SUMS = ("loss", "correct", "images", "seconds")
_ENTRY = ("epoch", "train_loss", "train_accuracy", "lr", "seconds", "images_per_second")
"""What every entry of a history has; it may also have the loss and accuracy of other images."""


def check_state(saved: Checkpoint) -> None:
    """Refuse a checkpoint whose parts cannot be so or contradict each other.

    Raises: ValueError naming the field or the tensor, what was expected and what came
    """
    _check_images(saved)
    for name in ("epoch", "batch", "optimizer_steps"):
        _expect(name, getattr(saved, name), 0, _MOST)
    _check_sums(saved.sums, saved.batch)
    _check_history(saved.history, saved.epoch)
    _check_best(saved.best_accuracy, saved.history)
    for name, state in saved.generators.items():
        _check_generator(f"generators: {name}", state)
    _check_tensors(saved)


def check_finite(tensors: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError naming the first tensor with a number that is infinite or none at all."""
    for name, array in tensors.items():
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            wrong = array[~np.isfinite(array)]
            raise ValueError(f"{name}: expected finite numbers, got {wrong.flat[0]} in {wrong.size} places")


def _check_images(saved: Checkpoint) -> None:
    """Refuse a shape that no image has, and a mean or deviation that is not one finite number a channel."""
    if min(saved.image_shape) < 1 or not saved.class_names:
        raise ValueError(
            f"expected images and classes, got shape {short(saved.image_shape)} "
            f"and {len(saved.class_names)} classes"
        )
    for name, values in (("mean", saved.mean), ("std", saved.std)):
        if len(values) != saved.image_shape[0] or not all(map(_is_finite, values)):
            raise ValueError(f"{name}: expected {saved.image_shape[0]} finite numbers, got {short(values)}")
    if min(saved.std) <= 0:
        raise ValueError(f"std: expected numbers above 0, got {min(saved.std)}")


def _check_sums(sums: dict[str, Any], batch: int) -> None:
    """Those of the epoch under way: nothing before its first batch, and an image a batch at least."""
    if set(sums) != set(_SUMS):
        raise ValueError(f"sums: expected {', '.join(_SUMS)}, got {short(sorted(sums))}")
    for name, value in sums.items():
        least, most = (-math.inf, math.inf) if name == "loss" else (0, _MOST)
        _expect(f"sums: {name}", value, least, most)
    if not batch and any(sums.values()):
        raise ValueError(f"sums: expected zeros before the first batch, got {short(sums)}")
    if batch and (sums["images"] < batch or not sums["seconds"]):
        raise ValueError(
            f"sums: expected an image and some time for each of {batch} batches, got {short(sums)}"
        )
    if sums["correct"] > sums["images"]:
        raise ValueError(f"sums: expected at most {sums['images']} right answers, got {sums['correct']}")


def _check_history(history: list[dict[str, Any]], epochs: int) -> None:
    if len(history) != epochs:
        raise ValueError(f"history: expected an entry for each of {epochs} epochs, got {len(history)}")
    for number, entry in enumerate(history, 1):
        if missing := [key for key in _ENTRY if key not in entry]:
            raise ValueError(f"history: epoch {number}: expected {missing[0]}, which is not there")
        for key, value in entry.items():
            least = -math.inf if key.endswith("_loss") else 0  # one of 0 may be rounded to below it
            most = 1 if key.endswith("_accuracy") else math.inf
            if key == "temperature":
                least, most = LOWEST, HIGHEST
            _expect(f"history: epoch {number}: {key:.60}", value, least, most)
        if entry["epoch"] != number:
            raise ValueError(f"history: expected epoch {number}, got {entry['epoch']}")


def _check_best(best: float, history: list[dict[str, Any]]) -> None:
    """It is one of the history's accuracies, or -1 while there is none."""
    reached = {value for entry in history for key, value in entry.items() if key.endswith("_accuracy")}
    if best not in reached | {-1.0}:
        raise ValueError(f"best_accuracy: expected one of the history's or -1, got {short(best)}")


def _check_generator(name: str, state: Any) -> None:
    """The state of a NumPy generator is one that such a generator can be in."""
    generator = np.random.PCG64()
    try:
        generator.state = state
        fits = generator.state == state
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(f"{name}: expected the state of a PCG64 generator, got {short(state)}")


def _check_tensors(saved: Checkpoint) -> None:
    """All are finite, and those of the training and of the optimizer are as large as the model's."""
    for group in ("model", "training", "optimizer"):
        tensors: dict[str, np.ndarray] = getattr(saved, group)
        try:
            check_finite(tensors)
            for name, array in tensors.items():
                own = name.partition(".")[2] if group == "optimizer" else name
                _check_alike(name, array, saved.model.get(own))
        except ValueError as error:
            raise ValueError(str(error) if group == "model" else f"{group}.{error}") from None


def _check_alike(name: str, array: np.ndarray, weight: np.ndarray | None) -> None:
    if weight is None:
        raise ValueError(f"{name}: expected a weight of the model, which has no such")
    if (array.shape, array.dtype) != (weight.shape, weight.dtype):
        raise ValueError(
            f"{name}: expected {weight.dtype} {weight.shape}, as the weight has, "
            f"got {array.dtype} {array.shape}"
        )


def _expect(name: str, value: Any, least: float, most: float) -> None:
    """Raise ValueError unless the value is a finite number from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name}: expected a number, got {short(value)}")
    if not (least <= value <= most and _is_finite(value)):
        bounds = f" from {least:g}" if least > -math.inf else ""
        bounds += f" to {most:g}" if most < math.inf else ""
        raise ValueError(f"{name}: expected a finite number{bounds}, got {short(value)}")


def _is_finite(value: float) -> bool:
    """Whether it is a number that a float can hold; JSON's integers have any length."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
