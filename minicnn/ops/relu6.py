"""ReLU that stops at 6.

    y = min(max(x, 0), 6)    derivative 1 where 0 < x < 6, else 0 (at 0 and at 6 too, as in torch)

NaN stays NaN in the forward pass.  Backward gives 0 where y <= 0 or y >= 6 and dy elsewhere, so also where
y is NaN.

Torch: torch.nn.functional.relu6
"""

from __future__ import annotations

import numpy as np

from minicnn import shapes


def relu6_forward(x: np.ndarray) -> np.ndarray:
    """y in x's shape, which may be any."""
    shapes.check_activation("relu6", "x", x)
    zero, six = x.dtype.type(0), x.dtype.type(6)
    # Step 1: keep what is above 0 and below 6.
    # without `out` NumPy gives a scalar, and no array, for an array of no dimension
    y: np.ndarray = np.maximum(x, zero, out=np.empty_like(x))
    np.minimum(y, six, out=y)
    return y


def relu6_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dx in the shape of dy and of y, the forward's output."""
    shapes.check_activation("relu6_backward", "dy", dy)
    shapes.check_array("relu6_backward", "y", y, dy.shape, dy)
    # Step 2: pass the gradient where the output is above 0 and below 6.
    return np.where((y <= 0) | (y >= 6), dy.dtype.type(0), dy)
