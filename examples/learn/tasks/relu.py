"""Exercises: the operation relu."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose as same


def relu(x: np.ndarray) -> np.ndarray:
    """ReLU of an array of any shape, where NaN stays NaN. ``np.where(x > 0, x, 0)`` would make it 0."""
    return np.maximum(x, 0)


def check_relu(answer):
    same(answer(np.array([-2.0, 0.0, 3.0, np.nan])), [0, 0, 3, np.nan])


def leaky(x: np.ndarray, a: float) -> np.ndarray:
    """Leaky ReLU lets a share ``a`` of the negative values through, so that no unit is ever quite dead."""
    return np.where(x > 0, x, a * x)


def check_leaky(answer):
    same(answer(np.array([-2.0, 0.0, 3.0]), 0.1), [-0.2, 0, 3])


def leaky_gradient(dy: np.ndarray, x: np.ndarray, a: float) -> np.ndarray:
    """The gradient of leaky ReLU's input. Check it against a small change of x, before you look at the
    solution.
    """
    return np.where(x > 0, dy, a * dy)


def check_leaky_gradient(answer):
    rng = np.random.default_rng(0)
    dy, x, tiny = rng.normal(size=20), rng.normal(size=20), 1e-6
    change = [np.where(z > 0, z, 0.1 * z) for z in (x + tiny, x - tiny)]
    same(answer(dy, x, 0.1), dy * (change[0] - change[1]) / (2 * tiny), rtol=1e-5)
