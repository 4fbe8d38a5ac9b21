"""2-D max-pooling.

    y[n,c,i,j] = max over window cells (u,v) of x[n,c, i*sh + u*dh - ph, j*sw + v*dw - pw]

The derivative of a maximum is 1 to the cell that won and 0 to the others, so backward adds each dy to its
winner's place.  ``argmax`` holds the winner's number u*KW + v.  Of equal cells the first wins.  Padding is
below every number and never wins.  A NaN beats every number, and of several the last wins.

Torch: torch.nn.functional.max_pool2d; with return_indices it counts pixels of the image, not window cells
"""

from __future__ import annotations

import numpy as np

from minicnn import shapes
from minicnn.ops.im2col import Pair, Window, image_chunks, pad_images


def max_pool2d_forward(
    x: np.ndarray, *, kernel_size: Pair, stride: Pair, padding: shapes.Padding, dilation: Pair,
    ceil_mode: bool, need_argmax: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:  # fmt: skip
    """y (N,C,OH,OW) of x (N,C,H,W), and argmax in y's shape, or None if it is not needed.

    argmax is uint8 where a window has at most 255 cells, else int64.
    """
    shapes.flags("max_pool2d", need_argmax=need_argmax)
    shapes.check_image("max_pool2d", "x", x)
    output = shapes.pool2d("max_pool2d", x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    window = Window(kernel_size, stride, padding, dilation, output)
    padded = pad_images(x.transpose(0, 2, 3, 1), window, -np.inf)
    cells = [padded[:, rows, columns] for _, _, rows, columns in window.cells()]
    y = cells[0].copy()
    argmax = _first_cells(window, y.shape) if need_argmax else None
    # Step 1: go through the cells of each window.
    for number, cell in enumerate(cells[1:], 1):
        if argmax is not None:
            # Step 2: keep the largest value and the number of its cell.
            # numbers rise, so the winner is the cell of the largest number that beat all before it
            np.maximum(argmax, (cell > y) * argmax.dtype.type(number), out=argmax)
        np.maximum(y, cell, out=y)
    if argmax is not None and np.isnan(y).any():
        for number, cell in enumerate(cells):
            np.copyto(argmax, number, where=np.isnan(cell))
    return y.transpose(0, 3, 1, 2), None if argmax is None else argmax.transpose(0, 3, 1, 2)


def max_pool2d_backward(
    dy: np.ndarray, argmax: np.ndarray, *, input_shape: tuple[int, ...], kernel_size: Pair,
    stride: Pair, padding: shapes.Padding, dilation: Pair, ceil_mode: bool,
) -> np.ndarray:  # fmt: skip
    """dx (N,C,H,W) for dy (N,C,OH,OW) and the forward's argmax.

    A number that is not that of a cell in the image gives its dy to no pixel.
    """
    op = "max_pool2d_backward"
    shapes.check_image(op, "dy", dy)
    shapes.check_image_shape(op, "input_shape", input_shape)
    output = shapes.pool2d(op, input_shape, kernel_size, stride, padding, dilation, ceil_mode)
    shapes.check_shape(op, "dy", dy, (*input_shape[:2], *output))
    shapes.check_ndarray(op, "argmax", argmax)
    shapes.check_shape(op, "argmax", argmax, dy.shape)
    shapes.check_dtype(op, "argmax", argmax, _argmax_dtype(kernel_size))
    window = Window(kernel_size, stride, padding, dilation, output)
    n, c, h, w = input_shape
    dx = np.zeros((n, window.padded(h, 0), window.padded(w, 1), c), dy.dtype)
    upstream, winners = dy.transpose(0, 2, 3, 1), argmax.transpose(0, 2, 3, 1)
    # multiplying by the mask is six times as fast as np.where, but makes NaN of 0 * inf
    keep = np.multiply if np.isfinite(dy).all() else _choose
    for chunk in image_chunks(n, dx[:1].nbytes):
        for number, (_, _, rows, columns) in enumerate(window.cells()):
            # Step 3: give each gradient to the pixel that won.
            dx[chunk, rows, columns] += keep(upstream[chunk], winners[chunk] == number)
    ph, pw = padding[:2]
    return dx[:, ph : ph + h, pw : pw + w].transpose(0, 3, 1, 2)


def _choose(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The values where the mask is true, else 0."""
    return np.where(where, values, values.dtype.type(0))


def _first_cells(window: Window, shape: tuple[int, ...]) -> np.ndarray:
    """The number of each window's first cell that is not padding, in the shape (N,OH,OW,C)."""
    first = []
    for axis in range(2):
        start = np.arange(window.output[axis]) * window.stride[axis] - window.padding[axis]
        first.append(np.maximum(0, -(start // window.dilation[axis])))
    argmax = np.empty(shape, _argmax_dtype(window.kernel))
    argmax[:] = (first[0][:, None] * window.kernel[1] + first[1])[:, :, None]
    return argmax


def _argmax_dtype(kernel: Pair) -> type[np.integer]:
    return np.uint8 if kernel[0] * kernel[1] <= 255 else np.int64
