"""Exercises: chapter 4, the loss and the downhill step."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose as same


def loss(probability: float) -> float:
    """The loss of one image whose right class has this probability."""
    return float(-np.log(probability))


def check_loss(answer):
    same([answer(1.0), answer(0.5), answer(0.1)], [0, np.log(2), np.log(10)], atol=1e-12)


def slope(f, w: float) -> float:
    """Measure the slope of a function at w: go 0.0001 to the right and as far to the left."""
    return (f(w + 0.0001) - f(w - 0.0001)) / 0.0002


def check_slope(answer):
    same(answer(lambda w: w**2, 3.0), 6, rtol=1e-6)
    same(answer(np.exp, 0.0), 1, rtol=1e-6)


def descend(slope_at, w: float, rate: float, steps: int) -> float:
    """Where do so many steps lead from w? ``slope_at(w)`` is the slope there."""
    for _ in range(steps):
        w = w - rate * slope_at(w)
    return w


def check_descend(answer):
    same(answer(lambda w: 2 * (w - 5), 1.0, 0.25, 2), 4)
    same(answer(lambda w: 2 * (w - 5), 1.0, 0.25, 40), 5, rtol=1e-9)


def largest_stable_rate() -> float:
    """The loss is $3 w^2$. From which learning rate on do the steps no longer come closer to 0?

    One step takes w to w − rate · 6w.
    """
    return 1 / 3


def check_largest_stable_rate(answer):
    rate = answer()
    same(
        abs(1 - 6 * rate),
        1,
        rtol=1e-6,
        err_msg="at this rate each step must lead exactly as far as it came from",
    )
    assert rate > 0, "a learning rate is positive"
