"""Exercises: chapter 2, a linear classifier."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose as same


def scores(image: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The scores (K,) of an image of P pixels (P,), for weights (K,P) and biases (K,).

    Use two loops: add up the products by hand once.
    """
    result = bias.astype(float)
    for k in range(len(weight)):
        for i in range(len(image)):
            result[k] += weight[k, i] * image[i]
    return result


def check_scores(answer):
    bias = np.array([3, 0])
    same(answer(np.array([0, 5, 9]), np.array([[1, -2, 1], [0, 1, 0]]), bias), [2, 5])
    same(bias, [3, 0], err_msg="the bias that was given must not change")


def numbers_to_learn(side: int, channels: int, classes: int) -> int:
    """How many numbers does a linear classifier learn, biases included, for square images of this side?"""
    return side * side * channels * classes + classes


def check_numbers_to_learn(answer):
    from minicnn.layers import Dense, Flatten, Sequential

    for side, channels, classes in ((14, 1, 10), (32, 3, 7)):
        model = Sequential(Flatten(), Dense(side * side * channels, classes), backend="numpy", seed=0)
        same(answer(side, channels, classes), sum(v.size for v in model.state_dict().values()))


def both_layers(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two dense layers without bias follow each other, with weights (H,P) and (K,H).

    Return the weights (K,P) of one layer that does the same. So nothing was gained.
    """
    return second @ first


def check_both_layers(answer):
    rng = np.random.default_rng(0)
    first, second, image = rng.normal(size=(4, 6)), rng.normal(size=(3, 4)), rng.normal(size=6)
    same(answer(first, second) @ image, second @ (first @ image))
