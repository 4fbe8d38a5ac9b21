"""Exercises: chapter 3, why a convolution."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose as same


def window_sum(image: np.ndarray, weights: np.ndarray, row: int, column: int) -> float:
    """The sum of the products of a filter (3,3) and the window of the image whose upper left pixel is
    (row, column).
    """
    return float((image[row : row + 3, column : column + 3] * weights).sum())


def check_window_sum(answer):
    image, weights = np.arange(20.0).reshape(4, 5), np.arange(9.0).reshape(3, 3) - 4
    same(answer(image, weights, 1, 2), (image[1:4, 2:5] * weights).sum())


def bright_below() -> np.ndarray:
    """Give a filter (3,3) that answers strongly where it is dark above and bright below.

    It must give 0 on every region of equal brightness.
    """
    return np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1]])


def check_bright_below(answer):
    weights = np.asarray(answer())
    step = np.array([[0, 0, 0], [0, 0, 0], [1, 1, 1]])
    same(weights.shape, (3, 3))
    same(weights.sum(), 0, atol=1e-12, err_msg="a region of equal brightness must give 0")
    assert (weights * step).sum() > 0, "dark above, bright below must give a positive number"
    same((weights * step.T).sum(), 0, atol=1e-12, err_msg="an upright edge must give 0")


def convolution_weights(filters: int, maps: int, kernel: int) -> int:
    """How many weights, without biases, has a layer of so many filters over so many maps, with square
    windows?
    """
    return filters * maps * kernel * kernel


def check_convolution_weights(answer):
    from minicnn.layers import Conv2d, Sequential

    for filters, maps, kernel in ((16, 8, 3), (6, 3, 5)):
        model = Sequential(Conv2d(maps, filters, kernel, bias=False), backend="numpy", seed=0)
        same(answer(filters, maps, kernel), model.state_dict()["0.weight"].size)


def correlate(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The whole map of an image (H,W) and a filter (KH,KW), without padding: shape (H-KH+1, W-KW+1)."""
    kh, kw = weights.shape
    result = np.empty((image.shape[0] - kh + 1, image.shape[1] - kw + 1))
    for i in range(result.shape[0]):
        for j in range(result.shape[1]):
            result[i, j] = (image[i : i + kh, j : j + kw] * weights).sum()
    return result


def check_correlate(answer):
    from minicnn.ops.conv2d import conv2d_forward

    rng = np.random.default_rng(0)
    image, weights = rng.normal(size=(5, 7)), rng.normal(size=(2, 3))
    one = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    same(answer(image, weights), conv2d_forward(image[None, None], weights[None, None], None, **one)[0, 0])
