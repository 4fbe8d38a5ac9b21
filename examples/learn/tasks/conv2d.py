"""Exercises: the operation conv2d."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose as same


def output_side(side: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """How many rows has the output for an image with so many rows?"""
    return (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def check_output_side(answer):
    from minicnn.ops.conv2d import conv2d_forward

    for side, kernel, s, p, d in ((28, 5, 1, 2, 1), (7, 3, 2, 1, 1), (11, 3, 3, 0, 2)):
        attributes = {"stride": (s, s), "padding": (p, p), "dilation": (d, d), "groups": 1}
        y = conv2d_forward(
            np.zeros((1, 1, side, side)), np.zeros((1, 1, kernel, kernel)), None, **attributes
        )
        same(answer(side, kernel, s, p, d), y.shape[2])


def same_padding(kernel: int, dilation: int) -> int:
    """Which padding keeps the size of the image at stride 1, for an odd kernel?"""
    return dilation * (kernel - 1) // 2


def check_same_padding(answer):
    same([answer(3, 1), answer(5, 1), answer(3, 4)], [1, 2, 4])


def multiply_adds(n: int, c: int, f: int, kernel: int, rows: int, columns: int) -> int:
    """How many multiplications does a convolution take for n images, c channels, f filters, with an
    output of rows × columns?
    """
    return n * f * rows * columns * c * kernel * kernel


def check_multiply_adds(answer):
    same(answer(2, 3, 8, 5, 4, 6), 2 * 8 * 24 * 75)


def bias_gradient(dy: np.ndarray) -> np.ndarray:
    """The gradient (F,) of the bias, given dy (N,F,OH,OW). Each bias was added to every output of its
    filter.
    """
    return dy.sum(axis=(0, 2, 3))


def check_bias_gradient(answer):
    dy = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    same(answer(dy), [dy[:, f].sum() for f in range(3)])
