"""Softmax over the classes.

    p[n,k] = exp(x[n,k] - m[n]) / sum over j of exp(x[n,j] - m[n]),   m[n] = max over k of x[n,k]

Subtracting the maximum does not change the ratio, and keeps exp from overflowing.  The derivative is
dp[k]/dx[j] = p[k]*(delta[k,j] - p[j]), with delta[k,j] = 1 if k = j, else 0.  It follows that
dx = p * (dy - sum over k of dy*p).

Torch: torch.softmax(x, dim=1)
"""

from __future__ import annotations

import numpy as np

from minicnn import shapes


def softmax_forward(x: np.ndarray) -> np.ndarray:
    """Probabilities (N,K) of x (N,K)."""
    shapes.check_float("softmax", "x", x)
    shapes.check_matrix("softmax", "x", x, "N, K")
    return softmax(x)


def softmax(x: np.ndarray) -> np.ndarray:
    """`softmax_forward` without the checks."""
    with np.errstate(invalid="ignore"):  # inf - inf is NaN, as in torch
        p: np.ndarray = x - x.max(axis=1, keepdims=True, initial=-np.inf)
    np.exp(p, out=p)
    p /= p.sum(axis=1, keepdims=True)
    return p


def softmax_backward(dy: np.ndarray, p: np.ndarray) -> np.ndarray:
    """dx (N,K) for dy (N,K) and the forward's p."""
    shapes.check_float("softmax_backward", "dy", dy)
    shapes.check_matrix("softmax_backward", "dy", dy, "N, K")
    shapes.check_array("softmax_backward", "p", p, dy.shape, dy)
    dx: np.ndarray = p * (dy - (dy * p).sum(axis=1, keepdims=True))
    return dx
