"""Exercises: chapter 6, training."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose as same


def batches(images: int, size: int, seed: int) -> list[np.ndarray]:
    """Cut the numbers 0 to images − 1, in a random order that depends on the seed, into batches of this
    size.

    The last batch may be smaller.
    """
    order = np.random.default_rng(seed).permutation(images)
    return [order[k : k + size] for k in range(0, images, size)]


def check_batches(answer):
    cut = answer(10, 4, 0)
    same([len(batch) for batch in cut], [4, 4, 2])
    same(np.sort(np.concatenate(cut)), np.arange(10))
    same(
        np.concatenate(answer(10, 4, 0)),
        np.concatenate(cut),
        err_msg="the same seed must give the same order",
    )
    assert any((np.concatenate(answer(10, 4, s)) != np.arange(10)).any() for s in (0, 1)), (
        "the order is not random"
    )


def steps(images: int, batch_size: int, epochs: int) -> int:
    """How many steps does a training take? The last batch of an epoch may be smaller."""
    return epochs * -(-images // batch_size)


def check_steps(answer):
    same([answer(100, 50, 3), answer(101, 50, 3)], [6, 9])


def with_momentum(slopes: list[float], rate: float, momentum: float) -> float:
    """A weight begins at 0. Where is it after one step for each of these slopes?

    The velocity begins at 0; a step multiplies it by the momentum, adds the slope, and moves the weight by
    minus the rate times the velocity.
    """
    weight = velocity = 0.0
    for slope in slopes:
        velocity = momentum * velocity + slope
        weight -= rate * velocity
    return weight


def check_with_momentum(answer):
    same(answer([1.0, 1.0, 1.0], 0.1, 0.0), -0.3)
    same(answer([1.0, 1.0], 0.1, 0.5), -0.25)
    same(answer([1.0, -0.9], 1.0, 0.9), -1.0)


def cosine_rate(step: int, steps: int, highest: float) -> float:
    """The learning rate of a step, from 0 on, that falls from ``highest`` to 0 along half a cosine."""
    return highest * (1 + np.cos(np.pi * step / steps)) / 2


def check_cosine_rate(answer):
    from minicnn.schedules import cosine

    same([answer(k, 8, 0.3) for k in range(9)], [cosine(0.3, 8)(k) for k in range(9)], atol=1e-12)
