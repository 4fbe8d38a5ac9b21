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
    # Step 1: multiply the inputs by the weights and add up.
    y: np.ndarray = x @ weight.T
    # Step 2: add the bias.
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
        # Step 3: the gradient to x: dy times the weights.
        dy @ weight if need_dx else None,
        # Step 4: the gradient to the weights: dy times x.
        dy.T @ x if need_dw else None,
        # Step 5: the gradient to the bias: the sum of dy.
        dy.sum(axis=0) if need_db else None,
    )
