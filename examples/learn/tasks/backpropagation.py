"""Exercises: chapter 5, backpropagation by hand."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose as same


def through_relu(gradient: np.ndarray, output: np.ndarray) -> np.ndarray:
    """The gradient of ReLU's input, given that of its output, and the output itself."""
    return np.where(output > 0, gradient, 0)


def check_through_relu(answer):
    same(answer(np.array([[2.0, -3.0], [4.0, 1.0]]), np.array([[0.0, 5.0], [0.1, 0.0]])), [[0, -3], [4, 0]])


def through_pool(gradient: float, window: np.ndarray) -> np.ndarray:
    """The gradient of a window (2,2) whose maximum has this gradient. Of equal values the first is the
    winner.
    """
    result = np.zeros_like(window, dtype=float)
    result[np.unravel_index(window.argmax(), window.shape)] = gradient
    return result


def check_through_pool(answer):
    same(answer(0.5, np.array([[1, 2], [4, 0]])), [[0, 0], [0.5, 0]])
    same(answer(-1.0, np.array([[3, 3], [1, 3]])), [[-1, 0], [0, 0]])


def to_filter(gradient: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The gradient of a filter (3,3), given that of its map (H-2,W-2) and the image (H,W).

    Each value of the map used one window, so it adds its gradient times this window.
    """
    result = np.zeros((3, 3))
    for i in range(gradient.shape[0]):
        for j in range(gradient.shape[1]):
            result += gradient[i, j] * image[i : i + 3, j : j + 3]
    return result


def check_to_filter(answer):
    from minicnn.ops.conv2d import conv2d_backward

    rng = np.random.default_rng(0)
    image, gradient = rng.normal(size=(5, 6)), rng.normal(size=(3, 4))
    one = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    _, expected, _ = conv2d_backward(gradient[None, None], image[None, None], np.zeros((1, 1, 3, 3)), **one)
    same(answer(gradient, image), expected[0, 0])


def used_twice(gradient_of_square: float, gradient_of_double: float, x: float) -> float:
    """A number x goes into $a = x^2$ and into $b = 2x$. Given the gradients of a and of b, what is
    that of x?
    """
    return gradient_of_square * 2 * x + gradient_of_double * 2


def check_used_twice(answer):
    same(answer(1.0, 0.0, 3.0), 6)
    same(answer(-1.0, 5.0, 2.0), 6)
