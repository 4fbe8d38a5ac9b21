"""What each operation means, in plain loops: slow, without checks, and short enough to read at once.

Names, arguments and results are those of the contract.  Where an argument is missing, such as the class
weights of the loss, the definition is of the usual case.  The tests compare these with the operations, and
the site shows them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

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


# ---- layers with weights ---------------------------------------------------------------------------


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
        total = 0.0 if bias is None else bias[k]
        for u, v, row, column in window(i, j, (kh, kw), stride, padding, dilation, (h, w)):
            for channel in range(c):
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
                dx[image, first + channel, row, column] += g * weight[k, channel, u, v]
                dw[k, channel, u, v] += g * x[image, first + channel, row, column]
        db[k] += g
    return dx, dw, db


def dense_forward(x: Array, weight: Array, bias: Array | None) -> Array:
    """Every output is a weighted sum of all inputs."""
    y = np.zeros((len(x), len(weight)), x.dtype)
    for n, o in np.ndindex(y.shape):
        total = 0.0 if bias is None else bias[o]
        for i in range(x.shape[1]):
            total += x[n, i] * weight[o, i]
        y[n, o] = total
    return y


def dense_backward(dy: Array, x: Array, weight: Array) -> Gradients:
    """Each output passes its gradient on to every input, weight and bias that it was computed from."""
    dx, dw, db = np.zeros_like(x), np.zeros_like(weight), np.zeros(len(weight), x.dtype)
    for n, o in np.ndindex(dy.shape):
        for i in range(x.shape[1]):
            dx[n, i] += dy[n, o] * weight[o, i]
            dw[o, i] += dy[n, o] * x[n, i]
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
            mean = sum(values) / len(values)
            squares = sum((v - mean) ** 2 for v in values)
            var = squares / len(values)
            running_mean[c] += momentum * (mean - running_mean[c])
            running_var[c] += momentum * (squares / max(len(values) - 1, 1) - running_var[c])
        invstd = 1 / math.sqrt(var + eps)
        scale, shift = 1.0 if weight is None else weight[c], 0.0 if bias is None else bias[c]
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
            db[c] += g
            dw[c] += g * z
        count = xhat.size if training else math.inf  # in evaluation, mean and variance are constants
        dx[:, c] = scale * invstd[c] * (dy[:, c] - db[c] / count - xhat * dw[c] / count)
    return (dx, None, None) if weight is None else (dx, dw, db)


# ---- pools -----------------------------------------------------------------------------------------


def max_pool2d_forward(
    x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[Array, Array]:
    """The largest value of each window, and the number of the cell where it stood."""
    y = np.zeros(_pooled(x.shape, kernel_size, stride, padding, dilation, ceil_mode), x.dtype)
    argmax = np.zeros(y.shape, np.int64)
    for n, c, i, j in np.ndindex(y.shape):
        best = -math.inf
        for u, v, row, column in window(i, j, kernel_size, stride, padding, dilation, x.shape[2:]):
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


# ---- one value, or one row, at a time ---------------------------------------------------------------


def relu_forward(x: Array) -> Array:
    """Negative values become 0."""
    y = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        y[at] = x[at] if not x[at] <= 0 else 0
    return y


def relu_backward(dy: Array, y: Array) -> Array:
    """What was let through passes its gradient; what became 0 does not."""
    dx = np.zeros_like(dy)
    for at in np.ndindex(dy.shape):
        dx[at] = 0 if y[at] <= 0 else dy[at]
    return dx


def dropout_forward(x: Array, keep_mask: Array, *, p: float) -> Array:
    """What is kept grows by 1 / (1 - p), so that the mean stays; the rest becomes 0."""
    y = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        if keep_mask[at]:
            y[at] = x[at] / (1 - p)
    return y


def dropout_backward(dy: Array, keep_mask: Array, *, p: float) -> Array:
    """The same for the gradient."""
    return dropout_forward(dy, keep_mask, p=p)


def add_forward(a: Array, b: Array) -> Array:
    """The sum of two arrays, value by value."""
    y = np.zeros_like(a)
    for at in np.ndindex(a.shape):
        y[at] = a[at] + b[at]
    return y


def add_backward(dy: Array) -> tuple[Array, Array]:
    """Both get the whole gradient."""
    return dy, dy


def softmax_forward(x: Array) -> Array:
    """Powers of e, divided by their sum; the largest is subtracted first, so that none overflows."""
    p = np.zeros_like(x)
    for n in range(len(x)):
        powers = [math.exp(value - max(x[n])) for value in x[n]]
        for k, power in enumerate(powers):
            p[n, k] = power / sum(powers)
    return p


def softmax_backward(dy: Array, p: Array) -> Array:
    """Each input raises its own probability and lowers the others."""
    dx = np.zeros_like(p)
    for n, j in np.ndindex(p.shape):
        for k in range(p.shape[1]):
            dx[n, j] += dy[n, k] * p[n, k] * ((1 if k == j else 0) - p[n, j])
    return dx


def softmax_cross_entropy_forward(logits: Array, labels: Array, **_rest: Any) -> tuple[Array, Array]:
    """The mean over the batch of minus the logarithm of the right class's probability."""
    probs, loss = softmax_forward(logits), 0.0
    for n, label in enumerate(labels):
        largest = max(logits[n])
        log_sum = largest + math.log(sum(math.exp(z - largest) for z in logits[n]))
        loss += (log_sum - logits[n, label]) / len(labels)  # not log(probs), which may have become 0
    return np.asarray(loss, logits.dtype), probs


def softmax_cross_entropy_backward(probs: Array, labels: Array, **_rest: Any) -> Array:
    """Probabilities minus what they should have been."""
    dlogits = np.zeros_like(probs)
    for n, k in np.ndindex(probs.shape):
        dlogits[n, k] = (probs[n, k] - (1 if k == labels[n] else 0)) / len(labels)
    return dlogits


# ---- joining and reshaping -------------------------------------------------------------------------


def concat_forward(xs: Sequence[Array]) -> Array:
    """The channels of all arrays, one array after the other."""
    channels = [x[:, c] for x in xs for c in range(x.shape[1])]
    return np.stack(channels, axis=1)


def concat_backward(dy: Array, *, sizes: Sequence[int]) -> list[Array]:
    """The gradient, cut at the same places."""
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    return [dy[:, start : start + size] for start, size in zip(starts, sizes, strict=True)]


def flatten_forward(x: Array) -> Array:
    """Each image becomes a row: channel after channel, row after row."""
    n, channels, h, w = x.shape
    y = np.zeros((n, channels * h * w), x.dtype)
    for image, c, i, j in np.ndindex(x.shape):
        y[image, (c * h + i) * w + j] = x[image, c, i, j]
    return y


def flatten_backward(dy: Array, *, input_shape: tuple[int, ...]) -> Array:
    """The gradient, back in the image's shape."""
    _, _, h, w = input_shape
    dx = np.zeros(input_shape, dy.dtype)
    for image, c, i, j in np.ndindex(dx.shape):
        dx[image, c, i, j] = dy[image, (c * h + i) * w + j]
    return dx


# ---- optimizers ------------------------------------------------------------------------------------


def sgd_step(
    params: Sequence[Array], grads: Sequence[Array], buffers: Sequence[Array], *,
    lr: float, momentum: float, weight_decay: float, nesterov: bool,
) -> None:  # fmt: skip
    """Each weight moves against its gradient; with momentum, earlier gradients still count."""
    for w, gradient, v in zip(params, grads, buffers, strict=True):
        for at in np.ndindex(w.shape):
            g = gradient[at] + weight_decay * w[at]
            v[at] = momentum * v[at] + g
            w[at] -= lr * (g + momentum * v[at] if nesterov else v[at])


def adam_step(
    params: Sequence[Array], grads: Sequence[Array], exp_avgs: Sequence[Array],
    exp_avg_sqs: Sequence[Array], *, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    decoupled: bool, step: int,
) -> None:  # fmt: skip
    """Each weight moves by its mean gradient, divided by the gradient's usual size."""
    for w, gradient, m, s in zip(params, grads, exp_avgs, exp_avg_sqs, strict=True):
        for at in np.ndindex(w.shape):
            g = gradient[at] + (0 if decoupled else weight_decay * w[at])
            w[at] -= lr * weight_decay * w[at] if decoupled else 0
            m[at] = beta1 * m[at] + (1 - beta1) * g
            s[at] = beta2 * s[at] + (1 - beta2) * g * g
            mean, square = m[at] / (1 - beta1**step), s[at] / (1 - beta2**step)
            w[at] -= lr * mean / (math.sqrt(square) + eps)


def global_norm(arrays: Sequence[Array]) -> float:
    """The length of all values taken as one vector."""
    return math.sqrt(sum(float(value) ** 2 for array in arrays for value in array.flat))


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
