"""Average pooling to a given output size, whatever the input size.

Output row i averages input rows floor(i*H/OH) .. ceil((i+1)*H/OH) - 1, and columns likewise.  The regions
cover the input, are of nearly equal size, and may share a row with their neighbours: from 5 rows to 3, they
are rows 0-1, 1-3 and 3-4.  A region's sum is taken over its rows first, then over its columns.  Backward
adds dy / (cells of the region) to every cell of its region.

Torch: torch.nn.functional.adaptive_avg_pool2d(x, output_size)
"""

from __future__ import annotations

import numpy as np

from minicnn import shapes
from minicnn.ops.im2col import Pair


def adaptive_avg_pool2d_forward(x: np.ndarray, *, output_size: Pair) -> np.ndarray:
    """y (N,C,OH,OW) of x (N,C,H,W)."""
    op = "adaptive_avg_pool2d"
    shapes.check_image(op, "x", x)
    shapes.check_pair(op, "output_size", output_size, 1)
    rows, columns = _regions(x.shape[2], output_size[0]), _regions(x.shape[3], output_size[1])
    summed = np.stack([x[:, :, a:b].sum(axis=2) for a, b in rows], axis=2)
    y = np.stack([summed[:, :, :, a:b].sum(axis=3) for a, b in columns], axis=3)
    y /= _areas(rows, columns).astype(x.dtype)
    return y


def adaptive_avg_pool2d_backward(dy: np.ndarray, *, input_shape: tuple[int, ...]) -> np.ndarray:
    """dx (N,C,H,W) for an upstream gradient dy (N,C,OH,OW)."""
    op = "adaptive_avg_pool2d_backward"
    shapes.check_image(op, "dy", dy)
    shapes.check_image_shape(op, "input_shape", input_shape)
    if tuple(dy.shape[:2]) != tuple(input_shape[:2]):
        shapes.fail(op, "input_shape", f"(N, C) = {tuple(dy.shape[:2])} and H, W", tuple(input_shape))
    rows, columns = _regions(input_shape[2], dy.shape[2]), _regions(input_shape[3], dy.shape[3])
    share = dy / _areas(rows, columns).astype(dy.dtype)
    spread = np.zeros((*dy.shape[:3], input_shape[3]), dy.dtype)
    for j, (a, b) in enumerate(columns):
        spread[:, :, :, a:b] += share[:, :, :, j : j + 1]
    dx = np.zeros(tuple(input_shape), dy.dtype)
    for i, (a, b) in enumerate(rows):
        dx[:, :, a:b] += spread[:, :, i : i + 1]
    return dx


def _regions(size: int, parts: int) -> list[Pair]:
    """The first row of each region, i*size/parts rounded down, and the row after its last, rounded up."""
    return [(i * size // parts, ((i + 1) * size + parts - 1) // parts) for i in range(parts)]


def _areas(rows: list[Pair], columns: list[Pair]) -> np.ndarray:
    """The number of cells of each region, (OH,OW)."""
    return np.array([[(b - a) * (d - c) for c, d in columns] for a, b in rows])
