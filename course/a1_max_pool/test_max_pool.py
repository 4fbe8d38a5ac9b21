"""Tests of assignment 1, against loops and against minicnn's own operation."""

from __future__ import annotations

import max_pool
import numpy as np
import pytest

from minicnn.ops.max_pool2d import max_pool2d_backward, max_pool2d_forward
from minicnn.testing import assert_close

PLACES = [(2, 2, 0), (3, 1, 0), (3, 2, 1), (2, 3, 1)]


def images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2, 3, 7, 8))


def attributes(kernel: int, stride: int, padding: int) -> dict:
    pair = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": 1}
    return {**{name: (value, value) for name, value in pair.items()}, "ceil_mode": False}


@pytest.mark.task_1_1
@pytest.mark.parametrize("place", PLACES)
def test_windows(place: tuple[int, int, int]) -> None:
    kernel, stride, padding = place
    x = images()
    cells = max_pool.windows(x, *place)
    oh, ow = (max_pool.output_side(side, *place) for side in x.shape[2:])
    assert cells.shape == (2, 3, oh, ow, kernel * kernel)
    for i in range(oh):
        for j in range(ow):
            for u in range(kernel):
                for v in range(kernel):
                    row, column = i * stride + u - padding, j * stride + v - padding
                    inside = 0 <= row < 7 and 0 <= column < 8
                    expected = x[:, :, row, column] if inside else np.full((2, 3), -np.inf)
                    np.testing.assert_array_equal(cells[:, :, i, j, u * kernel + v], expected)


@pytest.mark.task_1_2
@pytest.mark.parametrize("place", PLACES)
def test_forward(place: tuple[int, int, int]) -> None:
    x = images(1)
    y, winner = max_pool.forward(x, *place)
    expected, argmax = max_pool2d_forward(x, **attributes(*place))
    assert_close(y, expected, 0, "y")
    np.testing.assert_array_equal(winner, argmax)


@pytest.mark.task_1_3
@pytest.mark.parametrize(
    ("window", "cell"),
    [([1, 2, 2, 0], 1), ([3, 3, 3, 3], 0), ([5, np.nan, 9, 1], 1), ([np.nan, 1, np.nan, np.inf], 2)],
)
def test_ties_and_nan(window: list[float], cell: int) -> None:
    x = np.array(window, float).reshape(1, 1, 2, 2)
    y, winner = max_pool.forward(x, 2, 2, 0)
    assert winner.item() == cell
    np.testing.assert_array_equal(y.item(), window[cell])


@pytest.mark.task_1_4
@pytest.mark.parametrize("place", PLACES)
def test_backward(place: tuple[int, int, int]) -> None:
    x = images(2)
    y, winner = max_pool2d_forward(x, **attributes(*place))
    dy = np.random.default_rng(3).standard_normal(y.shape)
    expected = max_pool2d_backward(dy, winner, input_shape=x.shape, **attributes(*place))
    assert_close(max_pool.backward(dy, winner, x.shape, *place), expected, 1e-12, "dx")
