"""Group norm of images (N,C,H,W): the C channels are cut into groups of neighbours.

    y = weight * (x - mean) / sqrt(var + eps) + bias        mean and var of each image's group

Source: Wu and He 2018, arXiv:1803.08494
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minicnn.backends import Array
from minicnn.layers import Layer


def forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int, eps: float
) -> tuple[np.ndarray, Any]:
    """y in x's shape, and whatever backward needs; weight and bias are (C,)."""
    # BEGIN SOLUTION
    grouped = x.reshape(len(x), groups, -1)
    mean = grouped.mean(axis=2, keepdims=True)
    inverse = 1 / np.sqrt(grouped.var(axis=2, keepdims=True) + x.dtype.type(eps))
    normal = ((grouped - mean) * inverse).reshape(x.shape)
    return normal * weight[:, None, None] + bias[:, None, None], (normal, inverse, weight)
    # END SOLUTION


def backward(dy: np.ndarray, saved: Any, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dweight and dbias, in the shapes of x, weight and bias."""
    # BEGIN SOLUTION
    normal, inverse, weight = saved
    dweight, dbias = (dy * normal).sum(axis=(0, 2, 3)), dy.sum(axis=(0, 2, 3))
    upstream = (dy * weight[:, None, None]).reshape(len(dy), groups, -1)
    values = normal.reshape(upstream.shape)
    first = upstream.mean(axis=2, keepdims=True)
    second = (upstream * values).mean(axis=2, keepdims=True)
    return (inverse * (upstream - first - values * second)).reshape(dy.shape), dweight, dbias
    # END SOLUTION


class GroupNorm(Layer):
    """(N,C,H,W) -> the same shape; weight (C,), bias (C,).  Torch: nn.GroupNorm(groups, C)."""

    def __init__(self, groups: int, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.groups, self.channels, self.eps = groups, channels, eps

    def initial_params(self, generator: Any) -> dict[str, np.ndarray]:
        """The first values of weight and bias, float64."""
        # BEGIN SOLUTION
        del generator  # nothing is drawn
        return {"weight": np.ones(self.channels), "bias": np.zeros(self.channels)}
        # END SOLUTION

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        """(y, saved); saved is None in evaluation."""
        # BEGIN SOLUTION
        weight, bias = (self.backend.to_numpy(self.params[name]) for name in ("weight", "bias"))
        y, saved = forward(self.backend.to_numpy(x), weight, bias, self.groups, self.eps)
        return self.backend.asarray(y), saved if training else None
        # END SOLUTION

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        """dx, or None if it is not needed; gives the other two gradients to ``self.set_grads``."""
        # BEGIN SOLUTION
        dx, dweight, dbias = backward(self.backend.to_numpy(dy), saved, self.groups)
        self.set_grads(self.backend.asarray(dweight), self.backend.asarray(dbias))
        return self.backend.asarray(dx) if need_dx else None
        # END SOLUTION
