"""Optimizer steps, weight by weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Array = np.ndarray


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
