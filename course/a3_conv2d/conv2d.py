"""A convolution of images (N,C,H,W) with filters (F,C,K,K), one stride and one padding for both axes."""

from __future__ import annotations

import numpy as np


def output_side(side: int, kernel: int, stride: int, padding: int) -> int:
    """How many places the window has along an axis of this length."""
    return (side + 2 * padding - kernel) // stride + 1


def patches(x: np.ndarray, kernel: int, stride: int, padding: int) -> np.ndarray:
    """A row for each place of the window: (N*OH*OW, C*K*K), in the order of the filters' values."""
    # BEGIN SOLUTION
    n, c, h, w = x.shape
    oh, ow = output_side(h, kernel, stride, padding), output_side(w, kernel, stride, padding)
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    rows = np.empty((n, oh, ow, c, kernel, kernel), x.dtype)
    for u in range(kernel):
        for v in range(kernel):
            seen = padded[
                :, :, u : u + (oh - 1) * stride + 1 : stride, v : v + (ow - 1) * stride + 1 : stride
            ]
            rows[:, :, :, :, u, v] = seen.transpose(0, 2, 3, 1)
    return rows.reshape(n * oh * ow, c * kernel * kernel)
    # END SOLUTION


def forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """y (N,F,OH,OW)."""
    # BEGIN SOLUTION
    filters, _, kernel, _ = weight.shape
    oh, ow = (output_side(side, kernel, stride, padding) for side in x.shape[2:])
    y = patches(x, kernel, stride, padding) @ weight.reshape(filters, -1).T + bias
    return y.reshape(len(x), oh, ow, filters).transpose(0, 3, 1, 2)
    # END SOLUTION


def weight_gradient(dy: np.ndarray, x: np.ndarray, kernel: int, stride: int, padding: int) -> np.ndarray:
    """dweight (F,C,K,K) for dy (N,F,OH,OW)."""
    # BEGIN SOLUTION
    filters = dy.shape[1]
    upstream = dy.transpose(1, 0, 2, 3).reshape(filters, -1)
    return (upstream @ patches(x, kernel, stride, padding)).reshape(filters, x.shape[1], kernel, kernel)
    # END SOLUTION


def bias_gradient(dy: np.ndarray) -> np.ndarray:
    """dbias (F,) for dy (N,F,OH,OW)."""
    # BEGIN SOLUTION
    return dy.sum(axis=(0, 2, 3))
    # END SOLUTION


def image_gradient(
    dy: np.ndarray, weight: np.ndarray, input_shape: tuple[int, ...], stride: int, padding: int
) -> np.ndarray:
    """dx in the shape of the images, for dy (N,F,OH,OW)."""
    # BEGIN SOLUTION
    n, c, h, w = input_shape
    filters, _, kernel, _ = weight.shape
    oh, ow = dy.shape[2:]
    rows = dy.transpose(0, 2, 3, 1).reshape(-1, filters) @ weight.reshape(filters, -1)
    rows = rows.reshape(n, oh, ow, c, kernel, kernel).transpose(0, 3, 1, 2, 4, 5)
    padded = np.zeros((n, c, h + 2 * padding, w + 2 * padding), dy.dtype)
    for u in range(kernel):
        for v in range(kernel):
            down = slice(u, u + (oh - 1) * stride + 1, stride)
            right = slice(v, v + (ow - 1) * stride + 1, stride)
            padded[:, :, down, right] += rows[:, :, :, :, u, v]
    return padded[:, :, padding : padding + h, padding : padding + w]
    # END SOLUTION
