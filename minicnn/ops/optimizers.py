"""Optimizer steps over lists of parameters, in place, with torch.optim's order of operations.

w is a parameter, t the number of the step, from 1.  g is the gradient; unless decay is decoupled (AdamW),
weight_decay * w is added to it first.  v, m and s are state that starts at zero:

    SGD      v = momentum*v + g;  w -= lr * (g + momentum*v if nesterov else v)
    Adam     m = b1*m + (1-b1)*g;  s = b2*s + (1-b2)*g^2
             w -= lr * (m / (1-b1^t)) / (sqrt(s / (1-b2^t)) + eps)
    AdamW    Adam with w *= 1 - lr*weight_decay first, and no decay in g
    RMSprop  s = a*s + (1-a)*g^2;  v = momentum*v + g/(sqrt(s) + eps);  w -= lr * v

Every function takes lists with one array for each parameter, of that parameter's shape and dtype.  It
changes parameters, state and averages in place, and leaves the gradients as they are.  A scalar that is not
a number (for a flag, not True or False) is a ValueError.

Sources: Sutskever et al. 2013 (momentum); Kingma and Ba 2014, arXiv:1412.6980 (Adam); Loshchilov and Hutter
2017, arXiv:1711.05101 (AdamW); Hinton's Coursera lecture 6e, 2012 (RMSprop)
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
    """One step of torch.optim.SGD with dampening 0; ``buffers`` are v."""
    op = "sgd_step"
    shapes.optimizer(op, only_read="grads", params=params, grads=grads, buffers=buffers)
    lr, momentum = shapes.number(op, "lr", lr), shapes.number(op, "momentum", momentum)
    weight_decay = shapes.number(op, "weight_decay", weight_decay)
    nesterov = shapes.flag(op, "nesterov", nesterov)
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
    """One step of torch.optim.Adam, or AdamW if ``decoupled``; ``exp_avgs`` are m, ``exp_avg_sqs`` s.

    ``step`` is the number of the step, 1 for the first; beta1 and beta2 are below 1.
    """
    op = "adam_step"
    shapes.optimizer(
        op, only_read="grads", params=params, grads=grads, exp_avgs=exp_avgs, exp_avg_sqs=exp_avg_sqs
    )
    lr = shapes.number(op, "lr", lr)
    beta1, beta2 = shapes.below_1(op, "beta1", beta1), shapes.below_1(op, "beta2", beta2)
    eps, weight_decay = shapes.number(op, "eps", eps), shapes.number(op, "weight_decay", weight_decay)
    decoupled = shapes.flag(op, "decoupled", decoupled)
    step = shapes.at_least_1(op, "step", step)
    bias_correction1 = 1 - beta1**step
    bias_correction2_sqrt = math.sqrt(1 - beta2**step)
    step_size = lr / bias_correction1
    for w, g, m, s in zip(params, grads, exp_avgs, exp_avg_sqs, strict=True):
        if decoupled:
            w *= 1 - lr * weight_decay
        else:
            g = _decayed(g, w, weight_decay)
        m += (g - m) * (1 - beta1)
        s *= beta2
        s += (1 - beta2) * g * g
        denominator = np.sqrt(s, out=np.empty_like(s))  # an array even if s has no dimension
        denominator /= bias_correction2_sqrt
        denominator += eps
        np.divide(m, denominator, out=denominator)
        denominator *= step_size
        w -= denominator


def rmsprop_step(
    params: Arrays, grads: Arrays, square_avgs: Arrays, buffers: Arrays, *,
    lr: float, alpha: float, eps: float, weight_decay: float, momentum: float,
) -> None:  # fmt: skip
    """One step of torch.optim.RMSprop, not centred; ``square_avgs`` are s, ``buffers`` v."""
    op = "rmsprop_step"
    shapes.optimizer(
        op, only_read="grads", params=params, grads=grads, square_avgs=square_avgs, buffers=buffers
    )
    lr, alpha = shapes.number(op, "lr", lr), shapes.number(op, "alpha", alpha)
    eps, weight_decay = shapes.number(op, "eps", eps), shapes.number(op, "weight_decay", weight_decay)
    momentum = shapes.number(op, "momentum", momentum)
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
    """averages = decay * averages + (1 - decay) * params.

    Torch: torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    """
    shapes.optimizer("ema_update", only_read="params", averages=averages, params=params)
    decay = shapes.number("ema_update", "decay", decay)
    for a, w in zip(averages, params, strict=True):
        a *= decay
        a += (1 - decay) * w


def global_norm(arrays: Arrays) -> float:
    """The square root of the sum of squares over all arrays, as torch.nn.utils.clip_grad_norm_ takes it."""
    shapes.optimizer("global_norm", only_read="arrays", arrays=arrays)
    return math.sqrt(sum(float(np.vdot(a, a)) for a in arrays))


def scale(arrays: Arrays, factor: float) -> None:
    """Multiply every array by ``factor``, in place."""
    shapes.optimizer("scale", arrays=arrays)
    factor = shapes.number("scale", "factor", factor)
    for a in arrays:
        a *= factor


def _decayed(g: np.ndarray, w: np.ndarray, weight_decay: float) -> np.ndarray:
    """The gradient of L + weight_decay/2 * |w|^2."""
    return g + weight_decay * w if weight_decay else g
