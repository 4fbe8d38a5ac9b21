"""Image patches as matrix rows, and back: what turns a convolution into a matrix product.

Row p of ``cols`` holds the KH*KW*C input values under the window at output position p, so

    conv2d:  y = cols @ W                    (P, K) @ (K, F)
    dw:      dW = cols.T @ dy                (K, P) @ (P, F)
    dx:      dcols = dy @ W.T, then col2im   each value added back where it was read

``col2im`` is the adjoint of ``im2col``: <im2col(x), c> = <x, col2im(c)> for every x and c.

With G groups the channels are cut into G runs and every group has a matrix of its own: ``cols`` is
(G, P, K) with P = N*OH*OW and K = KH*KW*C/G, ordered (kh, kw, c).
Source: Chellapilla, Puri and Simard 2006, "High performance convolutional neural networks".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

Pair = tuple[int, int]

CHUNK_BYTES = 2**20
"""Patches handled at a time: they should stay in the second-level cache until they are used."""


class Window(NamedTuple):
    """How a KH x KW window moves over an H x W image."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    output: Pair

    def padded(self, size: int, axis: int) -> int:
        """Length of the image along this axis with its padding, and no shorter than is read."""
        reach = (
            (self.output[axis] - 1) * self.stride[axis] + self.dilation[axis] * (self.kernel[axis] - 1) + 1
        )
        return max(size + 2 * self.padding[axis], reach)

    def cells(self) -> Iterator[tuple[int, int, slice, slice]]:
        """For each cell (u, v) of the window, the padded rows and columns that it reads."""
        for u in range(self.kernel[0]):
            for v in range(self.kernel[1]):
                yield u, v, self._positions(u, 0), self._positions(v, 1)

    def _positions(self, cell: int, axis: int) -> slice:
        start, step = cell * self.dilation[axis], self.stride[axis]
        return slice(start, start + (self.output[axis] - 1) * step + 1, step)


def pad_images(x: np.ndarray, window: Window, value: float = 0.0) -> np.ndarray:
    """x (N,H,W,C) inside a border of ``value``; x itself where no border is needed."""
    n, h, w, c = x.shape
    ph, pw = window.padding
    shape = (n, window.padded(h, 0), window.padded(w, 1), c)
    if shape == x.shape:
        return x
    padded = np.full(shape, value, x.dtype)
    padded[:, ph : ph + h, pw : pw + w] = x
    return padded


def im2col(x: np.ndarray, window: Window, groups: int = 1) -> np.ndarray:
    """cols (G, N*OH*OW, KH*KW*C/G) of images x (N,H,W,C)."""
    n, _, _, c = x.shape
    oh, ow = window.output
    kh, kw = window.kernel
    padded = pad_images(x, window)
    cols = np.empty((groups, n, oh, ow, kh, kw, c // groups), x.dtype)
    for u, v, rows, columns in window.cells():
        patch = padded[:, rows, columns].reshape(n, oh, ow, groups, c // groups)
        cols[:, :, :, :, u, v] = np.moveaxis(patch, 3, 0)
    return cols.reshape(groups, n * oh * ow, kh * kw * (c // groups))


def col2im(cols: np.ndarray, shape: tuple[int, ...], window: Window) -> np.ndarray:
    """The images (N,H,W,C) of this shape to which every patch has been added back."""
    n, h, w, c = shape
    groups = len(cols)
    oh, ow = window.output
    patches = cols.reshape(groups, n, oh, ow, *window.kernel, c // groups)
    padded = np.zeros((n, window.padded(h, 0), window.padded(w, 1), groups, c // groups), cols.dtype)
    for u, v, rows, columns in window.cells():
        padded[:, rows, columns] += np.moveaxis(patches[:, :, :, :, u, v], 0, 3)
    ph, pw = window.padding
    return padded[:, ph : ph + h, pw : pw + w].reshape(n, h, w, c)


def image_chunks(images: int, bytes_per_image: int) -> Iterator[slice]:
    """Runs of images whose patches together take about CHUNK_BYTES."""
    step = max(1, CHUNK_BYTES // max(1, bytes_per_image))
    for start in range(0, images, step):
        yield slice(start, min(start + step, images))
