"""Exercises: the operation batch_norm2d."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose as same


def normalise(x: np.ndarray, eps: float) -> np.ndarray:
    """Bring each channel of x (N,C,H,W) to mean 0 and variance 1; eps is added to the variance before
    its root.
    """
    mean, var = x.mean(axis=(0, 2, 3), keepdims=True), x.var(axis=(0, 2, 3), keepdims=True)
    return (x - mean) / np.sqrt(var + eps)


def check_normalise(answer):
    from minicnn.ops.batch_norm2d import batch_norm2d_forward

    x = np.random.default_rng(0).normal(3, 2, (4, 3, 5, 2))
    expected, *_ = batch_norm2d_forward(x, None, None, None, None, training=True, momentum=0.1, eps=1e-5)
    same(answer(x, 1e-5), expected)


def running_mean(old: float, batch_means: list[float], momentum: float) -> float:
    """The running mean after these batches. Each takes the share ``momentum`` of what is new."""
    for mean in batch_means:
        old = (1 - momentum) * old + momentum * mean
    return old


def check_running_mean(answer):
    same(answer(0.0, [1.0, 1.0], 0.1), 0.19)


def without_effect(dy: np.ndarray) -> np.ndarray:
    """Adding the same number to a whole channel changes nothing after batch norm. So dx of a channel has
    mean 0.

    Return dy (N,C,H,W) less its mean in each channel: the first of the two parts that backward subtracts.
    """
    return dy - dy.mean(axis=(0, 2, 3), keepdims=True)


def check_without_effect(answer):
    dy = np.random.default_rng(0).normal(1, 1, (2, 3, 4, 5))
    result = answer(dy)
    same(result.mean(axis=(0, 2, 3)), np.zeros(3), atol=1e-12)
    same(result - dy, np.broadcast_to(-dy.mean(axis=(0, 2, 3))[:, None, None], dy.shape))
