"""Pools: what stands for each window of a map."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minicnn.testing.definitions.weights import window

Array = np.ndarray
Pair = tuple[int, int]


def max_pool2d_forward(
    x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[Array, Array]:
    """The largest value of each window, and the number of the cell where it stood."""
    y = np.zeros(_pooled(x.shape, kernel_size, stride, padding, dilation, ceil_mode), x.dtype)
    argmax = np.zeros(y.shape, np.int64)
    for n, c, i, j in np.ndindex(y.shape):
        best = -math.inf
        # Step 1: go through the cells of each window.
        for u, v, row, column in window(i, j, kernel_size, stride, padding, dilation, x.shape[2:]):
            # Step 2: keep the largest value and the number of its cell.
            if x[n, c, row, column] > best:  # so the first of equal values wins
                best = x[n, c, row, column]
                argmax[n, c, i, j] = u * kernel_size[1] + v
        y[n, c, i, j] = best
    return y, argmax


def max_pool2d_backward(
    dy: Array, argmax: Array, *,
    input_shape: tuple[int, ...], kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
    **_rest: Any,
) -> Array:  # fmt: skip
    """Each gradient goes to the pixel that won."""
    dx = np.zeros(input_shape, dy.dtype)
    for n, c, i, j in np.ndindex(dy.shape):
        u, v = divmod(int(argmax[n, c, i, j]), kernel_size[1])
        row = i * stride[0] + u * dilation[0] - padding[0]
        column = j * stride[1] + v * dilation[1] - padding[1]
        # Step 3: give each gradient to the pixel that won.
        dx[n, c, row, column] += dy[n, c, i, j]
    return dx


def _pooled(
    shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[int, ...]:
    """The shape of a pool's output.  With ceil_mode a last window that begins in the image hangs over."""
    sides = []
    for axis in range(2):
        room = shape[2 + axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1
        side = math.ceil(room / stride[axis]) + 1 if ceil_mode else room // stride[axis] + 1
        if ceil_mode and (side - 1) * stride[axis] >= shape[2 + axis] + padding[axis]:
            side -= 1
        sides.append(side)
    return (*shape[:2], *sides)


def _cells(
    i: int, j: int, kernel: Pair, stride: Pair, padding: Pair, image: Pair, count_include_pad: bool
) -> int:
    """How many cells of a window count in its mean: those in the image, or those in it and its padding."""
    edge = padding if count_include_pad else (0, 0)
    inside = ((image[0] + 2 * edge[0]), (image[1] + 2 * edge[1]))
    shift = padding[0] - edge[0], padding[1] - edge[1]
    return sum(1 for _ in window(i, j, kernel, stride, shift, (1, 1), inside))


def avg_pool2d_forward(
    x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, ceil_mode: bool, count_include_pad: bool
) -> Array:
    """The mean of each window."""
    y = np.zeros(_pooled(x.shape, kernel_size, stride, padding, (1, 1), ceil_mode), x.dtype)
    for n, c, i, j in np.ndindex(y.shape):
        for _, _, row, column in window(i, j, kernel_size, stride, padding, (1, 1), x.shape[2:]):
            y[n, c, i, j] += x[n, c, row, column]
        y[n, c, i, j] /= _cells(i, j, kernel_size, stride, padding, x.shape[2:], count_include_pad)
    return y


def avg_pool2d_backward(
    dy: Array, *, input_shape: tuple[int, ...], kernel_size: Pair, stride: Pair, padding: Pair,
    count_include_pad: bool, **_rest: Any,
) -> Array:  # fmt: skip
    """Each gradient is shared evenly by the pixels of its window."""
    dx, image = np.zeros(input_shape, dy.dtype), (input_shape[2], input_shape[3])
    for n, c, i, j in np.ndindex(dy.shape):
        count = _cells(i, j, kernel_size, stride, padding, image, count_include_pad)
        for _, _, row, column in window(i, j, kernel_size, stride, padding, (1, 1), image):
            dx[n, c, row, column] += dy[n, c, i, j] / count
    return dx


def _region(k: int, outputs: int, inputs: int) -> slice:
    """The inputs that output k of an adaptive pool is the mean of; neighbours may share one."""
    return slice(k * inputs // outputs, -(-(k + 1) * inputs // outputs))


def adaptive_avg_pool2d_forward(x: Array, *, output_size: Pair) -> Array:
    """The mean of each of oh × ow regions that cover the image evenly."""
    y = np.zeros((*x.shape[:2], *output_size), x.dtype)
    for n, c, i, j in np.ndindex(y.shape):
        rows, columns = _region(i, output_size[0], x.shape[2]), _region(j, output_size[1], x.shape[3])
        y[n, c, i, j] = x[n, c, rows, columns].mean()
    return y


def adaptive_avg_pool2d_backward(dy: Array, *, input_shape: tuple[int, ...]) -> Array:
    """Each gradient is shared evenly by the pixels of its region."""
    dx = np.zeros(input_shape, dy.dtype)
    for n, c, i, j in np.ndindex(dy.shape):
        rows, columns = _region(i, dy.shape[2], input_shape[2]), _region(j, dy.shape[3], input_shape[3])
        dx[n, c, rows, columns] += dy[n, c, i, j] / dx[n, c, rows, columns].size
    return dx
