"""Fully connected layer.

y = x @ W.T + b        y[n,o] = b[o] + sum over i of x[n,i] * W[o,i]

dL/dx[n,i] = sum over o of dy[n,o] * W[o,i]         dx = dy @ W
dL/dW[o,i] = sum over n of dy[n,o] * x[n,i]         dW = dy.T @ x
dL/db[o]   = sum over n of dy[n,o]

Torch: torch.nn.functional.linear
"""

from __future__ import annotations

import numpy as np

from minicnn import shapes


def dense_forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """y (N,out) of x (N,in), weight (out,in), bias (out,) or None."""
    shapes.dense("dense", x, weight, bias)
    y: np.ndarray = x @ weight.T
    if bias is not None:
        y += bias
    return y


def dense_backward(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray, *,
    need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:  # fmt: skip
    """(dx, dw, db), in the shapes of x, weight and bias, for dy (N,out); None where not needed."""
    op = "dense_backward"
    shapes.flags(op, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
    shapes.dense(op, x, weight, None)
    shapes.check_array(op, "dy", dy, (len(x), len(weight)), x)
    return (
        dy @ weight if need_dx else None,
        dy.T @ x if need_dw else None,
        dy.sum(axis=0) if need_db else None,
    )
