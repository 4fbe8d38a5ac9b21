"""Rectified linear unit.

    y = max(x, 0)            derivative 1 where x > 0, else 0 (at 0 too, as in torch)

NaN stays NaN in the forward pass.  Backward gives 0 where y <= 0 and dy elsewhere, so also where y is NaN.

Torch: torch.nn.functional.relu
"""

from __future__ import annotations

import numpy as np

from minicnn import shapes


def relu_forward(x: np.ndarray) -> np.ndarray:
    """y in x's shape, which may be any."""
    shapes.check_float("relu", "x", x)
    # Step 1: keep what is above 0.
    # without `out` NumPy gives a scalar, and no array, for an array of no dimension
    y: np.ndarray = np.maximum(x, x.dtype.type(0), out=np.empty_like(x))
    return y


def relu_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dx in the shape of dy and of y, the forward's output."""
    shapes.check_float("relu_backward", "dy", dy)
    shapes.check_array("relu_backward", "y", y, dy.shape, dy)
    # Step 2: pass the gradient where the output is above 0.
    return np.where(y <= 0, dy.dtype.type(0), dy)
