"""Exercises: the operation dense."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose as same


def dense(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """y (N,out) of x (N,in), weight (out,in) and bias (out,), in one line."""
    return x @ weight.T + bias


def check_dense(answer):
    from minicnn.ops.dense import dense_forward

    rng = np.random.default_rng(0)
    x, weight, bias = rng.normal(size=(4, 3)), rng.normal(size=(5, 3)), rng.normal(size=5)
    same(answer(x, weight, bias), dense_forward(x, weight, bias))


def weight_gradient(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The gradient (out,in) of the weight, given dy (N,out) and x (N,in). The shapes leave only one way."""
    return dy.T @ x


def check_weight_gradient(answer):
    rng = np.random.default_rng(0)
    dy, x = rng.normal(size=(4, 5)), rng.normal(size=(4, 3))
    same(answer(dy, x), np.einsum("no,ni->oi", dy, x))


def as_convolution(weight: np.ndarray, channels: int, rows: int, columns: int) -> np.ndarray:
    """A dense layer after Flatten is a convolution whose filters are as large as the map. Return its
    weight (F,C,KH,KW).

    Flatten goes through the channels first, then the rows, then the columns.
    """
    return weight.reshape(len(weight), channels, rows, columns)


def check_as_convolution(answer):
    from minicnn.ops.conv2d import conv2d_forward

    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(6, 60))
    one = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    same(conv2d_forward(x, answer(weight, 3, 4, 5), None, **one)[:, :, 0, 0], x.reshape(2, 60) @ weight.T)
