"""Max-pool of images (N,C,H,W), with a square window of side ``kernel``."""

from __future__ import annotations

import numpy as np


def output_side(side: int, kernel: int, stride: int, padding: int) -> int:
    """How many places the window has along an axis of this length."""
    # BEGIN SOLUTION
    return (side + 2 * padding - kernel) // stride + 1
    # END SOLUTION


def windows(x: np.ndarray, kernel: int, stride: int, padding: int) -> np.ndarray:
    """The values under the window at each place, (N,C,OH,OW,kernel*kernel), cells counted row by row.

    Cells beyond the edge are minus infinity.
    """
    # BEGIN SOLUTION
    oh, ow = (output_side(side, kernel, stride, padding) for side in x.shape[2:])
    sides = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    padded = np.pad(x, sides, constant_values=-np.inf)
    cells = [
        padded[:, :, u : u + (oh - 1) * stride + 1 : stride, v : v + (ow - 1) * stride + 1 : stride]
        for u in range(kernel)
        for v in range(kernel)
    ]
    return np.stack(cells, axis=-1)
    # END SOLUTION


def forward(x: np.ndarray, kernel: int, stride: int, padding: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest value of each window, and the number of the cell that won; both (N,C,OH,OW)."""
    # BEGIN SOLUTION
    cells = windows(x, kernel, stride, padding)
    winner = cells.argmax(axis=-1)  # NumPy's argmax takes the first of equals, and the first NaN
    nan = np.isnan(cells)
    last_nan = kernel * kernel - 1 - nan[..., ::-1].argmax(axis=-1)
    winner = np.where(nan.any(axis=-1), last_nan, winner)
    return np.take_along_axis(cells, winner[..., None], axis=-1)[..., 0], winner
    # END SOLUTION


def backward(
    dy: np.ndarray, winner: np.ndarray, input_shape: tuple[int, ...], kernel: int, stride: int, padding: int
) -> np.ndarray:
    """dx in the shape of the input, given dy and the winners, both (N,C,OH,OW)."""
    # BEGIN SOLUTION
    n, c, h, w = input_shape
    oh, ow = dy.shape[2:]
    padded = np.zeros((n, c, h + 2 * padding, w + 2 * padding), dy.dtype)
    for cell in range(kernel * kernel):
        u, v = divmod(cell, kernel)
        rows, columns = (
            slice(u, u + (oh - 1) * stride + 1, stride),
            slice(v, v + (ow - 1) * stride + 1, stride),
        )
        padded[:, :, rows, columns] += np.where(winner == cell, dy, 0)
    return padded[:, :, padding : padding + h, padding : padding + w]
    # END SOLUTION
