"""2-D convolution (cross-correlation), as matrix products over image patches.

Forward, with cols = im2col(x) of shape (P, K), P = N*OH*OW positions and K = KH*KW*C values each:

    y[p,f] = b[f] + sum over k of cols[p,k] * W[k,f]

OH = floor((H + 2*ph - dh*(KH-1) - 1) / sh) + 1, with padding (ph, pw), dilation (dh, dw), stride (sh, sw);
OW likewise.  With padding (top, left, bottom, right), top + bottom stands in the place of 2*ph.

Backward, for an upstream gradient dy[p,f] of the loss L, by the chain rule:

    dL/dW[k,f]    = sum over p of cols[p,k] * dy[p,f]          dW = cols.T @ dy
    dL/db[f]      = sum over p of dy[p,f]
    dL/dcols[p,k] = sum over f of dy[p,f] * W[k,f]             dcols = dy @ W.T, dx = col2im(dcols)

The images are processed in chunks whose patches fit the cache.  Backward makes the patches again: to keep
them would take KH*KW times the memory of x.  Arrays are channels-last in memory (the transposed views
below), so that the C values of a pixel lie side by side.

Torch: torch.nn.functional.conv2d
"""

from __future__ import annotations

import numpy as np

from minicnn import shapes
from minicnn.ops.im2col import Pair, Window, col2im, im2col, image_chunks


def conv2d_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, *,
    stride: Pair, padding: shapes.Padding, dilation: Pair, groups: int,
) -> np.ndarray:  # fmt: skip
    """y (N,F,OH,OW) of x (N,C,H,W), weight (F,C/groups,KH,KW), bias (F,) or None."""
    output = shapes.conv2d("conv2d", x, weight, bias, stride, padding, dilation, groups)
    window = Window((weight.shape[2], weight.shape[3]), stride, padding, dilation, output)
    images = x.transpose(0, 2, 3, 1)
    matrix = _weight_matrix(weight, groups)
    y = np.empty((len(x), *output, len(weight)), x.dtype)
    for chunk in _chunks(x, window):
        # Step 1: find the pixels of each window.
        cols = im2col(images[chunk], window, groups)
        # Step 2: multiply them by the filter and add up.
        np.matmul(cols, matrix, out=_by_group(y[chunk], groups))
        # Step 3: add the bias.
        if bias is not None:
            y[chunk] += bias
    return y.transpose(0, 3, 1, 2)


def conv2d_backward(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray, *,
    stride: Pair, padding: shapes.Padding, dilation: Pair, groups: int,
    need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:  # fmt: skip
    """(dx, dw, db), in the shapes of x, weight and bias, for dy (N,F,OH,OW); None where not needed."""
    op = "conv2d_backward"
    shapes.flags(op, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
    output = shapes.conv2d(op, x, weight, None, stride, padding, dilation, groups)
    shapes.check_array(op, "dy", dy, (len(x), len(weight), *output), x)
    window = Window((weight.shape[2], weight.shape[3]), stride, padding, dilation, output)
    images = x.transpose(0, 2, 3, 1)
    upstream = np.ascontiguousarray(dy.transpose(0, 2, 3, 1))
    matrix = _weight_matrix(weight, groups)
    dx = np.empty(images.shape, x.dtype) if need_dx else None
    dmatrix = np.zeros_like(matrix) if need_dw else None
    for chunk in _chunks(x, window):
        grouped = _by_group(upstream[chunk], groups)
        if dmatrix is not None:
            # Step 5: the gradient to the weights: each output adds dy times its window.
            cols = im2col(images[chunk], window, groups)
            dmatrix += cols.swapaxes(1, 2) @ grouped
        if dx is not None:
            # Step 4: the gradient to x: each output gives its pixels dy times the weights.
            dcols = grouped @ matrix.swapaxes(1, 2)
            dx[chunk] = col2im(dcols, images[chunk].shape, window)
    # Step 6: the gradient to the bias: the sum of dy.
    db = upstream.sum(axis=(0, 1, 2)) if need_db else None
    return (
        None if dx is None else dx.transpose(0, 3, 1, 2),
        None if dmatrix is None else _matrix_weight(dmatrix, weight.shape, groups),
        db,
    )


def _chunks(x: np.ndarray, window: Window) -> list[slice]:
    patch = window.kernel[0] * window.kernel[1] * x.shape[1] * x.itemsize
    return list(image_chunks(len(x), window.output[0] * window.output[1] * patch))


def _by_group(y: np.ndarray, groups: int) -> np.ndarray:
    """(n,OH,OW,F) seen as (G, n*OH*OW, F/G)."""
    return y.reshape(-1, groups, y.shape[-1] // groups).swapaxes(0, 1)


def _weight_matrix(weight: np.ndarray, groups: int) -> np.ndarray:
    """(F,C/G,KH,KW) -> (G, KH*KW*C/G, F/G), rows in im2col's order."""
    f, c, kh, kw = weight.shape
    grouped = weight.reshape(groups, f // groups, c, kh, kw).transpose(0, 3, 4, 2, 1)
    return np.ascontiguousarray(grouped.reshape(groups, kh * kw * c, f // groups))


def _matrix_weight(matrix: np.ndarray, shape: tuple[int, ...], groups: int) -> np.ndarray:
    """The inverse of `_weight_matrix`."""
    f, c, kh, kw = shape
    grouped = matrix.reshape(groups, kh, kw, c, f // groups).transpose(0, 4, 3, 1, 2)
    return np.ascontiguousarray(grouped.reshape(shape))
