"""Exercises: chapter 7, judging a network."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose as same


def precision(matrix: np.ndarray, k: int) -> float:
    """The precision of class k. Rows of the confusion matrix are true classes, columns what they were
    called.
    """
    return float(matrix[k, k] / matrix[:, k].sum())


MATRIX = np.array([[8, 2, 0], [1, 5, 4], [0, 3, 7]])


def check_precision(answer):
    same([answer(MATRIX, k) for k in range(3)], [8 / 9, 0.5, 7 / 11])


def recall(matrix: np.ndarray, k: int) -> float:
    """The recall of class k."""
    return float(matrix[k, k] / matrix[k].sum())


def check_recall(answer):
    same([answer(MATRIX, k) for k in range(3)], [0.8, 0.5, 0.7])


def best_epoch(history: list[tuple[float, float]]) -> int:
    """The history has the training loss and the validation loss of each epoch. Which epoch, counted from 1,
    should be kept?
    """
    return int(np.argmin([validation for _, validation in history])) + 1


def check_best_epoch(answer):
    same(answer([(2.0, 2.0), (1.0, 1.2), (0.5, 0.9), (0.1, 1.4)]), 3)


def diagnosis(training_right: float, validation_right: float) -> str:
    """Given the shares of right images, where 0.95 is wanted: "underfitting", "overfitting" or "good"?

    Call it overfitting if validation is worse than training by more than 0.05.
    """
    if training_right - validation_right > 0.05:
        return "overfitting"
    return "good" if validation_right >= 0.95 else "underfitting"


def check_diagnosis(answer):
    for given, expected in (
        ((1.0, 0.8), "overfitting"),
        ((0.7, 0.69), "underfitting"),
        ((0.97, 0.96), "good"),
    ):
        got = answer(*given)
        assert got == expected, f"for {given}: expected {expected}, got {got}"
