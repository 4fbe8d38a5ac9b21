"""Operations on single values, on rows, and those that join and reshape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minicnn.ops.cast import bfloat16

Array = np.ndarray


def relu_forward(x: Array) -> Array:
    """Negative values become 0."""
    y = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        # Step 1: keep what is above 0.
        y[at] = x[at] if not x[at] <= 0 else 0
    return y


def relu_backward(dy: Array, y: Array) -> Array:
    """What was let through passes its gradient; what became 0 does not."""
    dx = np.zeros_like(dy)
    for at in np.ndindex(dy.shape):
        # Step 2: pass the gradient where the output is above 0.
        dx[at] = 0 if y[at] <= 0 else dy[at]
    return dx


def relu6_forward(x: Array) -> Array:
    """Negative values become 0, and values above 6 become 6."""
    y = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        # Step 1: keep what is above 0 and below 6.
        y[at] = 0 if x[at] <= 0 else 6 if x[at] >= 6 else x[at]
    return y


def relu6_backward(dy: Array, y: Array) -> Array:
    """What was let through passes its gradient; what became 0 or 6 does not."""
    dx = np.zeros_like(dy)
    for at in np.ndindex(dy.shape):
        # Step 2: pass the gradient where the output is above 0 and below 6.
        dx[at] = 0 if y[at] <= 0 or y[at] >= 6 else dy[at]
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
        # Step 1: subtract the largest logit, so that no power overflows.
        largest = max(logits[n])
        # Step 2: take the logarithm of the sum of the powers.
        log_sum = largest + math.log(sum(math.exp(z - largest) for z in logits[n]))
        # Step 3: add up the loss of the targets.
        loss += (log_sum - logits[n, label]) / len(labels)  # not log(probs), which may have become 0
    return np.asarray(loss, logits.dtype), probs


def softmax_cross_entropy_backward(probs: Array, labels: Array, **_rest: Any) -> Array:
    """Probabilities minus what they should have been."""
    dlogits = np.zeros_like(probs)
    for n, k in np.ndindex(probs.shape):
        # Step 4: the gradient: probabilities minus targets.
        dlogits[n, k] = (probs[n, k] - (1 if k == labels[n] else 0)) / len(labels)
    return dlogits


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


def cast_forward(x: Array, *, dtype: str) -> Array:
    """The upper half of a float32's bits, after half of what is cut off was added; back is exact."""
    if dtype == "float32":
        return x.astype(np.float32)
    upper = np.zeros(x.shape, np.uint16)
    for at in np.ndindex(x.shape):
        bits = int(x[at].astype(np.float32).view(np.uint32))
        last_kept = bits >> 16 & 1  # half way, this makes the even neighbour of both
        upper[at] = (bits + 0x7FFF + last_kept) >> 16
    return upper.view(bfloat16())


def cast_backward(dy: Array, *, input_dtype: str) -> Array:
    """The gradient, cast the other way."""
    return cast_forward(dy, dtype=input_dtype)
