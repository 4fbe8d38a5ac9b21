"""Optimizer steps over lists of parameters, in place, with torch.optim's order of operations.

With g the gradient, plus weight_decay * w where decay is not decoupled:

    SGD      v = momentum*v + g;  w -= lr * (g + momentum*v if nesterov else v)
    Adam     m = b1*m + (1-b1)*g;  s = b2*s + (1-b2)*g^2
             w -= lr * (m / (1-b1^t)) / (sqrt(s / (1-b2^t)) + eps)
    AdamW    Adam with w *= 1 - lr*weight_decay first, and no decay in g
    RMSprop  s = a*s + (1-a)*g^2;  v = momentum*v + g/(sqrt(s) + eps);  w -= lr * v

Sources: Sutskever et al. 2013; Kingma and Ba 2014, arXiv:1412.6980; Loshchilov and Hutter 2017,
arXiv:1711.05101; Hinton's Coursera lecture 6e, 2012.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minicnn import shapes

Arrays = Sequence[np.ndarray]


def sgd_step(
    params: Arrays, grads: Arrays, buffers: Arrays, *,
    lr: float, momentum: float, weight_decay: float, nesterov: bool,
) -> None:  # fmt: skip
    """torch.optim.SGD with dampening 0."""
    shapes.optimizer("sgd_step", params, grads=grads, buffers=buffers)
    for w, g, v in zip(params, grads, buffers, strict=True):
        g = _decayed(g, w, weight_decay)
        if momentum:
            v *= momentum
            v += g
            g = g + momentum * v if nesterov else v
        w -= lr * g


def adam_step(
    params: Arrays, grads: Arrays, exp_avgs: Arrays, exp_avg_sqs: Arrays, *,
    lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, decoupled: bool, step: int,
) -> None:  # fmt: skip
    """torch.optim.Adam, or AdamW if ``decoupled``; ``step`` is t, from 1."""
    shapes.optimizer("adam_step", params, grads=grads, exp_avgs=exp_avgs, exp_avg_sqs=exp_avg_sqs)
    rate = lr / (1 - beta1**step)
    root = math.sqrt(1 - beta2**step)
    for w, g, m, s in zip(params, grads, exp_avgs, exp_avg_sqs, strict=True):
        if decoupled:
            w *= 1 - lr * weight_decay
        else:
            g = _decayed(g, w, weight_decay)
        m += (g - m) * (1 - beta1)
        s *= beta2
        s += (1 - beta2) * g * g
        denominator = np.sqrt(s)
        denominator /= root
        denominator += eps
        np.divide(m, denominator, out=denominator)
        denominator *= rate
        w -= denominator


def rmsprop_step(
    params: Arrays, grads: Arrays, square_avgs: Arrays, buffers: Arrays, *,
    lr: float, alpha: float, eps: float, weight_decay: float, momentum: float,
) -> None:  # fmt: skip
    """torch.optim.RMSprop, not centred."""
    shapes.optimizer("rmsprop_step", params, grads=grads, square_avgs=square_avgs, buffers=buffers)
    for w, g, s, v in zip(params, grads, square_avgs, buffers, strict=True):
        g = _decayed(g, w, weight_decay)
        s *= alpha
        s += (1 - alpha) * g * g
        update = g / (np.sqrt(s) + eps)
        if momentum:
            v *= momentum
            v += update
            update = v
        w -= lr * update


def ema_update(averages: Arrays, params: Arrays, *, decay: float) -> None:
    """averages = decay * averages + (1 - decay) * params."""
    shapes.optimizer("ema_update", params, averages=averages)
    for a, w in zip(averages, params, strict=True):
        a *= decay
        a += (1 - decay) * w


def global_norm(arrays: Arrays) -> float:
    """sqrt of the sum of squares over all arrays."""
    return math.sqrt(sum(float(np.vdot(a, a)) for a in arrays))


def scale(arrays: Arrays, factor: float) -> None:
    """Multiply every array by ``factor``."""
    for a in arrays:
        a *= factor


def _decayed(g: np.ndarray, w: np.ndarray, weight_decay: float) -> np.ndarray:
    return g + weight_decay * w if weight_decay else g
