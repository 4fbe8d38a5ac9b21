"""Exercises: the operation softmax_cross_entropy."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose as same


def stable_log_softmax(logits: np.ndarray) -> np.ndarray:
    """The logarithms of softmax of one row (K,), also where the logits are as large as 1000."""
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def check_stable_log_softmax(answer):
    same(answer(np.array([1.0, 2.0])), np.log([1 / (1 + np.e), np.e / (1 + np.e)]))
    same(answer(np.array([1000.0, 0.0])), [0, -1000], atol=1e-12)


def guessing(classes: int) -> float:
    """The loss of a network that gives every class the same probability. An untrained network should
    be near it.
    """
    return float(np.log(classes))


def check_guessing(answer):
    same([answer(2), answer(10)], [np.log(2), np.log(10)])


def gradient(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The gradient of the mean loss to the logits, given probabilities (N,K) and labels (N,)."""
    result = probabilities.copy()
    result[np.arange(len(labels)), labels] -= 1
    return result / len(labels)


def check_gradient(answer):
    from minicnn.ops.softmax_cross_entropy import (
        softmax_cross_entropy_backward,
        softmax_cross_entropy_forward,
    )

    labels = np.array([2, 0, 1])
    _, probabilities = softmax_cross_entropy_forward(np.random.default_rng(0).normal(size=(3, 4)), labels)
    given = probabilities.copy()
    same(answer(probabilities, labels), softmax_cross_entropy_backward(given, labels))
    same(probabilities, given, err_msg="the probabilities that were given must not change")
