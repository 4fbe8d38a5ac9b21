"""Layers with weights: convolution, dense, batch norm."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

Array = np.ndarray
Pair = tuple[int, int]
Gradients = tuple[Array, Array, Array]


def window(
    i: int, j: int, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, image: Pair
) -> Iterator[tuple[int, int, int, int]]:
    """Cell (u, v) and pixel (row, column) of the window of output (i, j), where it lies in the image."""
    for u in range(kernel[0]):
        for v in range(kernel[1]):
            row = i * stride[0] + u * dilation[0] - padding[0]
            column = j * stride[1] + v * dilation[1] - padding[1]
            if 0 <= row < image[0] and 0 <= column < image[1]:
                yield u, v, row, column


def conv2d_forward(
    x: Array, weight: Array, bias: Array | None, *, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    """Multiply each window by each filter and add up."""
    (n, _, h, w), (f, c, kh, kw) = x.shape, weight.shape
    oh = (h + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (w + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = np.zeros((n, f, oh, ow), x.dtype)
    for image, k, i, j in np.ndindex(y.shape):
        first = k // (f // groups) * c  # the first channel of this filter's group
        # Step 3: add the bias; the sum begins with it.
        total = 0.0 if bias is None else bias[k]
        # Step 1: find the pixels of each window.
        for u, v, row, column in window(i, j, (kh, kw), stride, padding, dilation, (h, w)):
            for channel in range(c):
                # Step 2: multiply them by the filter and add up.
                total += x[image, first + channel, row, column] * weight[k, channel, u, v]
        y[image, k, i, j] = total
    return y


def conv2d_backward(
    dy: Array, x: Array, weight: Array, *, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Gradients:
    """Each output passes its gradient on to every pixel, weight and bias that it was computed from."""
    (h, w), (f, c, kh, kw) = x.shape[2:], weight.shape
    dx, dw, db = np.zeros_like(x), np.zeros_like(weight), np.zeros(f, x.dtype)
    for image, k, i, j in np.ndindex(dy.shape):
        first, g = k // (f // groups) * c, dy[image, k, i, j]
        for u, v, row, column in window(i, j, (kh, kw), stride, padding, dilation, (h, w)):
            for channel in range(c):
                # Step 4: the gradient to x: each output gives its pixels dy times the weights.
                dx[image, first + channel, row, column] += g * weight[k, channel, u, v]
                # Step 5: the gradient to the weights: each output adds dy times its window.
                dw[k, channel, u, v] += g * x[image, first + channel, row, column]
        # Step 6: the gradient to the bias: the sum of dy.
        db[k] += g
    return dx, dw, db


def dense_forward(x: Array, weight: Array, bias: Array | None) -> Array:
    """Every output is a weighted sum of all inputs."""
    y = np.zeros((len(x), len(weight)), x.dtype)
    for n, o in np.ndindex(y.shape):
        # Step 2: add the bias; the sum begins with it.
        total = 0.0 if bias is None else bias[o]
        for i in range(x.shape[1]):
            # Step 1: multiply the inputs by the weights and add up.
            total += x[n, i] * weight[o, i]
        y[n, o] = total
    return y


def dense_backward(dy: Array, x: Array, weight: Array) -> Gradients:
    """Each output passes its gradient on to every input, weight and bias that it was computed from."""
    dx, dw, db = np.zeros_like(x), np.zeros_like(weight), np.zeros(len(weight), x.dtype)
    for n, o in np.ndindex(dy.shape):
        for i in range(x.shape[1]):
            # Step 3: the gradient to x: dy times the weights.
            dx[n, i] += dy[n, o] * weight[o, i]
            # Step 4: the gradient to the weights: dy times x.
            dw[o, i] += dy[n, o] * x[n, i]
        # Step 5: the gradient to the bias: the sum of dy.
        db[o] += dy[n, o]
    return dx, dw, db


def batch_norm2d_forward(
    x: Array, weight: Array | None, bias: Array | None, running_mean: Array, running_var: Array, *,
    training: bool, momentum: float, eps: float,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Bring each channel to mean 0 and variance 1, then scale and shift it."""
    y, means, invstds = np.zeros_like(x), [], []
    for c in range(x.shape[1]):
        values = [float(v) for v in x[:, c].flat]
        mean, var = float(running_mean[c]), float(running_var[c])
        if training:
            # Step 1: the mean and the variance of each channel.
            mean = sum(values) / len(values)
            squares = sum((v - mean) ** 2 for v in values)
            var = squares / len(values)
            # Step 2: move the running statistics towards them.
            running_mean[c] += momentum * (mean - running_mean[c])
            running_var[c] += momentum * (squares / max(len(values) - 1, 1) - running_var[c])
        invstd = 1 / math.sqrt(var + eps)
        scale, shift = 1.0 if weight is None else weight[c], 0.0 if bias is None else bias[c]
        # Step 3: normalise, scale and shift.
        y[:, c] = (x[:, c] - mean) * invstd * scale + shift
        means.append(mean)
        invstds.append(invstd)
    return y, np.array(means, x.dtype), np.array(invstds, x.dtype)


def batch_norm2d_backward(
    dy: Array, x: Array, weight: Array | None, mean: Array, invstd: Array, *, training: bool
) -> tuple[Array, Array | None, Array | None]:
    """Take from the gradient what normalisation cancels: its mean, and its part along the output."""
    dx, dw, db = np.zeros_like(x), np.zeros_like(mean), np.zeros_like(mean)
    for c in range(x.shape[1]):
        scale = 1.0 if weight is None else weight[c]
        xhat = (x[:, c] - mean[c]) * invstd[c]
        for g, z in zip(dy[:, c].flat, xhat.flat, strict=True):
            # Step 4: sum dy, and dy times the normalised x.
            db[c] += g
            dw[c] += g * z
        count = xhat.size if training else math.inf  # in evaluation, mean and variance are constants
        # Step 5: take from dy what normalisation cancels.
        dx[:, c] = scale * invstd[c] * (dy[:, c] - db[c] / count - xhat * dw[c] / count)
    return (dx, None, None) if weight is None else (dx, dw, db)


def fold_batch_norm2d(
    weight: Array, bias: Array, gamma: Array, beta: Array, running_mean: Array, running_var: Array, *,
    eps: float,
) -> tuple[Array, Array]:  # fmt: skip
    """A convolution that does what a convolution and a batch norm in evaluation do."""
    folded, shift = np.zeros_like(weight), np.zeros_like(running_mean)
    for f in range(len(weight)):
        scale = gamma[f] / math.sqrt(running_var[f] + eps)
        folded[f] = weight[f] * scale
        shift[f] = (bias[f] - running_mean[f]) * scale + beta[f]
    return folded, shift
