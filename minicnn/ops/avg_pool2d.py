"""2-D average pooling.

    y[n,c,i,j] = (sum over window cells of x) / count[i,j]

Padding adds zeros to the sum.  ``count`` is the number of window cells that lie in the image or its
padding, or in the image alone if not ``count_include_pad``.  The derivative of y to every cell of its
window is 1/count, so backward adds dy/count to each.

Torch: torch.nn.functional.avg_pool2d
"""

from __future__ import annotations

import numpy as np

from minicnn import shapes
from minicnn.ops.im2col import Pair, Window, pad_images


def avg_pool2d_forward(
    x: np.ndarray, *, kernel_size: Pair, stride: Pair, padding: shapes.Padding, ceil_mode: bool,
    count_include_pad: bool,
) -> np.ndarray:  # fmt: skip
    """y (N,C,OH,OW) of x (N,C,H,W)."""
    shapes.flags("avg_pool2d", count_include_pad=count_include_pad)
    shapes.check_image("avg_pool2d", "x", x)
    output = shapes.pool2d("avg_pool2d", x.shape, kernel_size, stride, padding, (1, 1), ceil_mode)
    window = Window(kernel_size, stride, padding, (1, 1), output)
    padded = pad_images(x.transpose(0, 2, 3, 1), window)
    y = np.zeros((len(x), *output, x.shape[1]), x.dtype)
    for _, _, rows, columns in window.cells():
        y += padded[:, rows, columns]
    y /= _counts(window, x.shape, count_include_pad).astype(x.dtype)
    return y.transpose(0, 3, 1, 2)


def avg_pool2d_backward(
    dy: np.ndarray, *, input_shape: tuple[int, ...], kernel_size: Pair, stride: Pair,
    padding: shapes.Padding, ceil_mode: bool, count_include_pad: bool,
) -> np.ndarray:  # fmt: skip
    """dx (N,C,H,W) for an upstream gradient dy (N,C,OH,OW)."""
    op = "avg_pool2d_backward"
    shapes.flags(op, count_include_pad=count_include_pad)
    shapes.check_image(op, "dy", dy)
    shapes.check_image_shape(op, "input_shape", input_shape)
    output = shapes.pool2d(op, input_shape, kernel_size, stride, padding, (1, 1), ceil_mode)
    shapes.check_shape(op, "dy", dy, (*input_shape[:2], *output))
    window = Window(kernel_size, stride, padding, (1, 1), output)
    n, c, h, w = input_shape
    share = dy.transpose(0, 2, 3, 1) / _counts(window, input_shape, count_include_pad).astype(dy.dtype)
    dx = np.zeros((n, window.padded(h, 0), window.padded(w, 1), c), dy.dtype)
    for _, _, rows, columns in window.cells():
        dx[:, rows, columns] += share
    ph, pw = padding[:2]
    return dx[:, ph : ph + h, pw : pw + w].transpose(0, 3, 1, 2)


def _counts(window: Window, input_shape: tuple[int, ...], count_include_pad: bool) -> np.ndarray:
    """The number of cells that count in each window, (OH,OW,1)."""
    lengths = []
    for axis, size in enumerate(input_shape[2:]):
        before, after = shapes.padding_of_axis(window.padding, axis)
        start = np.arange(window.output[axis]) * window.stride[axis] - before
        end = np.minimum(start + window.kernel[axis], size + after)
        if not count_include_pad:
            start, end = np.maximum(start, 0), np.minimum(end, size)
        lengths.append(end - start)
    counts: np.ndarray = lengths[0][:, None, None] * lengths[1][:, None]
    return counts
