"""Tests of assignment 3, against loops and against minicnn's own operation."""

from __future__ import annotations

import conv2d
import numpy as np
import pytest

from minicnn.ops.conv2d import conv2d_backward, conv2d_forward
from minicnn.testing import assert_close

PLACES = [(3, 1, 1), (3, 2, 0), (2, 3, 1), (1, 1, 0)]
FILTERS = 4


def drawn(kernel: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(kernel)
    shapes = (2, 3, 7, 8), (FILTERS, 3, kernel, kernel), (FILTERS,)
    return tuple(rng.standard_normal(shape) for shape in shapes)


def attributes(stride: int, padding: int) -> dict:
    return {"stride": (stride,) * 2, "padding": (padding,) * 2, "dilation": (1, 1), "groups": 1}


def expected_backward(place: tuple[int, int, int]) -> tuple:
    kernel, *where = place
    x, weight, bias = drawn(kernel)
    y = conv2d_forward(x, weight, bias, **attributes(*where))
    dy = np.random.default_rng(9).standard_normal(y.shape)
    return x, weight, dy, conv2d_backward(dy, x, weight, **attributes(*where))


@pytest.mark.task_3_1
@pytest.mark.parametrize("place", PLACES)
def test_patches(place: tuple[int, int, int]) -> None:
    kernel, stride, padding = place
    x, *_ = drawn(kernel)
    oh, ow = (conv2d.output_side(side, *place) for side in (7, 8))
    expected = np.zeros((2, oh, ow, 3, kernel, kernel))
    for i, j, u, v in np.ndindex(oh, ow, kernel, kernel):
        row, column = i * stride + u - padding, j * stride + v - padding
        if 0 <= row < 7 and 0 <= column < 8:
            expected[:, i, j, :, u, v] = x[:, :, row, column]
    np.testing.assert_array_equal(conv2d.patches(x, *place), expected.reshape(2 * oh * ow, -1))


@pytest.mark.task_3_2
@pytest.mark.parametrize("place", PLACES)
def test_forward(place: tuple[int, int, int]) -> None:
    kernel, *where = place
    x, weight, bias = drawn(kernel)
    expected = conv2d_forward(x, weight, bias, **attributes(*where))
    assert_close(conv2d.forward(x, weight, bias, *where), expected, 1e-12, "y")


@pytest.mark.task_3_3
@pytest.mark.parametrize("place", PLACES)
def test_weight_and_bias(place: tuple[int, int, int]) -> None:
    x, _, dy, (_, dw, db) = expected_backward(place)
    assert_close(conv2d.weight_gradient(dy, x, *place), dw, 1e-12, "dweight")
    assert_close(conv2d.bias_gradient(dy), db, 1e-12, "dbias")


@pytest.mark.task_3_4
@pytest.mark.parametrize("place", PLACES)
def test_image(place: tuple[int, int, int]) -> None:
    x, weight, dy, (dx, _, _) = expected_backward(place)
    found = conv2d.image_gradient(dy, weight, x.shape, *place[1:])
    assert_close(found, dx, 1e-12, "dx")


@pytest.mark.task_3_4
@pytest.mark.parametrize("place", PLACES)
def test_image_gradient_is_the_adjoint(place: tuple[int, int, int]) -> None:
    x, weight, dy, _ = expected_backward(place)
    y = conv2d_forward(x, weight, np.zeros(FILTERS), **attributes(*place[1:]))
    back = conv2d.image_gradient(dy, weight, x.shape, *place[1:])
    assert np.vdot(y, dy) == pytest.approx(np.vdot(x, back), rel=1e-10)
