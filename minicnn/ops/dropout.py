"""Dropout: each value is kept with probability 1-p and then divided by 1-p, so that E[y] = x.

    y = x * keep / (1-p)         dx = dy * keep / (1-p)

The mask is an argument: it is drawn on the host by a seeded generator, so every backend drops the same.
With p = 1 everything is dropped.

Torch:  torch.nn.functional.dropout, which draws its own mask
Source: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting"
"""

from __future__ import annotations

import numpy as np

from minicnn import shapes


def dropout_forward(x: np.ndarray, keep_mask: np.ndarray, *, p: float) -> np.ndarray:
    """y in x's shape, which may be any; keep_mask is bool in the same shape; p is from 0 to 1."""
    shapes.dropout("dropout", "x", x, keep_mask, p)
    return _apply(x, keep_mask, p)


def dropout_backward(dy: np.ndarray, keep_mask: np.ndarray, *, p: float) -> np.ndarray:
    """dx in the shape of dy; keep_mask and p are the forward's."""
    shapes.dropout("dropout_backward", "dy", dy, keep_mask, p)
    return _apply(dy, keep_mask, p)


def _apply(x: np.ndarray, keep_mask: np.ndarray, p: float) -> np.ndarray:
    factor = x.dtype.type(0 if p == 1 else 1 / (1 - p))
    # without `out` NumPy gives a scalar, and no array, for an array of no dimension
    y: np.ndarray = np.multiply(x, keep_mask * factor, out=np.empty_like(x))
    return y
