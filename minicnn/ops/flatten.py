"""Images as rows: y[n, (c*H + h)*W + w] = x[n,c,h,w]; backward puts each value back to its place.

Torch: x.flatten(1)
"""

from __future__ import annotations

import numpy as np

from minicnn import shapes


def flatten_forward(x: np.ndarray) -> np.ndarray:
    """(N,C,H,W) -> (N, C*H*W)."""
    shapes.check_image("flatten", "x", x)
    n, c, h, w = x.shape
    return np.ascontiguousarray(x).reshape(n, c * h * w)


def flatten_backward(dy: np.ndarray, *, input_shape: tuple[int, ...]) -> np.ndarray:
    """dx: dy (N, C*H*W) in the input's shape (N,C,H,W)."""
    shapes.check_activation("flatten_backward", "dy", dy)
    shapes.check_matrix("flatten_backward", "dy", dy, "N, C*H*W")
    shapes.check_image_shape("flatten_backward", "input_shape", input_shape)
    n, c, h, w = input_shape
    shapes.check_shape("flatten_backward", "dy", dy, (n, c * h * w))
    return dy.reshape(input_shape)
