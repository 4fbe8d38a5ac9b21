"""Optimizers, a measure, and a network with its settings."""

from __future__ import annotations

from typing import Any

import numpy as np

from minicnn import Sequential
from minicnn.layers import Conv2d, Dense, Flatten, ReLU


def sgd_step(
    w: np.ndarray, gradient: np.ndarray, velocity: np.ndarray, *, rate: float, momentum: float, decay: float
) -> None:
    """One step; w and velocity are changed in place.

    decay * w is added to the gradient first; velocity = momentum * velocity + that; w moves by
    -rate * velocity.
    """
    # BEGIN SOLUTION
    velocity *= momentum
    velocity += gradient + decay * w
    w -= rate * velocity
    # END SOLUTION


def adamw_step(
    w: np.ndarray, gradient: np.ndarray, mean: np.ndarray, square: np.ndarray, *,
    rate: float, beta1: float, beta2: float, eps: float, decay: float, step: int,
) -> None:  # fmt: skip
    """One step; w, mean and square are changed in place.  ``step`` is 1 for the first.

    The decay multiplies w by 1 - rate * decay, and does not enter the gradient.
    """
    # BEGIN SOLUTION
    w *= 1 - rate * decay
    mean += (1 - beta1) * (gradient - mean)
    square += (1 - beta2) * (gradient**2 - square)
    w -= rate * (mean / (1 - beta1**step)) / (np.sqrt(square / (1 - beta2**step)) + eps)
    # END SOLUTION


def confusion(labels: np.ndarray, called: np.ndarray, classes: int) -> np.ndarray:
    """How many images of class i were called j: (classes,classes), whole numbers."""
    # BEGIN SOLUTION
    matrix = np.zeros((classes, classes), int)
    np.add.at(matrix, (labels, called), 1)
    return matrix
    # END SOLUTION


def macro_f1(matrix: np.ndarray) -> float:
    """The mean over the classes of F1 = 2 * precision * recall / (precision + recall), or 0 for both 0."""
    # BEGIN SOLUTION
    hits = np.diag(matrix)
    total = matrix.sum(axis=0) + matrix.sum(axis=1)
    return float(np.mean(np.divide(2 * hits, total, out=np.zeros(len(matrix)), where=total > 0)))
    # END SOLUTION


def network() -> Sequential:
    """A network for images (1,28,28) of 10 classes, on the numpy backend, with at most 30,000 weights."""
    # BEGIN SOLUTION
    return Sequential(
        Conv2d(1, 16, 4, stride=4), ReLU(), Flatten(), Dense(16 * 49, 32), ReLU(), Dense(32, 10),
        backend="numpy", seed=0,
    )  # fmt: skip
    # END SOLUTION


def settings() -> dict[str, Any]:
    """The epochs, at most 8, the batch_size, and the learning rate of Adam."""
    # BEGIN SOLUTION
    return {"epochs": 6, "batch_size": 30, "rate": 3e-3}
    # END SOLUTION
