"""Image patches as rows of a matrix, and back: with these a convolution is a matrix product.

Row p of ``cols`` holds the KH*KW*C input values under the window at output position p.  Therefore

    conv2d:  y = cols @ W                    (P, K) @ (K, F)
    dw:      dW = cols.T @ dy                (K, P) @ (P, F)
    dx:      dcols = dy @ W.T, then col2im   each value is added to the pixel it was read from

``col2im`` is the adjoint of ``im2col``: <im2col(x), c> = <x, col2im(c)> for every x and c.

With G groups the channels are cut into G runs of C/G, and every group has a matrix of its own: ``cols`` is
(G, P, K) with P = N*OH*OW and K = KH*KW*C/G, ordered (kh, kw, c).

Torch:  torch.nn.functional.unfold and fold, which order the values (c, kh, kw)
Source: Chellapilla, Puri and Simard 2006, "High performance convolutional neural networks"
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from minicnn import shapes

Pair = tuple[int, int]

CHUNK_BYTES = 2**20
"""The patches made at a time take about this: they stay in the second-level cache until they are used."""

SHORT_RUN = 16
"""Runs of fewer channels than this are slow to copy; values are then copied along an image's rows."""


class Window(NamedTuple):
    """How a KH x KW window moves over an H x W image."""

    kernel: Pair
    stride: Pair
    padding: shapes.Padding
    dilation: Pair
    output: Pair

    def padded(self, size: int, axis: int) -> int:
        """The padded image's length along this axis, or more if the last window reaches further."""
        reach = (
            (self.output[axis] - 1) * self.stride[axis] + self.dilation[axis] * (self.kernel[axis] - 1) + 1
        )
        return max(size + sum(shapes.padding_of_axis(self.padding, axis)), reach)

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
    ph, pw = window.padding[:2]
    shape = (n, window.padded(h, 0), window.padded(w, 1), c)
    if shape == x.shape:
        return x
    padded = np.full(shape, value, x.dtype)
    padded[:, ph : ph + h, pw : pw + w] = x
    return padded


def im2col(x: np.ndarray, window: Window, groups: int = 1) -> np.ndarray:
    """cols (G, N*OH*OW, KH*KW*C/G) of images x (N,H,W,C)."""
    n, _, _, c = x.shape
    cols, patches = _empty_cols(n, c // groups, window, groups, x.dtype)
    padded = _by_group(pad_images(x, window), groups)
    for u, v, rows, columns in window.cells():
        patches[:, :, :, :, u, v] = padded[:, :, rows, columns]
    return cols


def col2im(cols: np.ndarray, shape: tuple[int, ...], window: Window) -> np.ndarray:
    """Images of this shape (N,H,W,C): every value of ``cols`` is added to the pixel it was read from."""
    n, h, w, c = shape
    groups = len(cols)
    patches = cols.reshape(groups, n, *window.output, *window.kernel, c // groups)
    padded = np.zeros((n, window.padded(h, 0), window.padded(w, 1), c), cols.dtype)
    grouped = _by_group(padded, groups)
    for u, v, rows, columns in window.cells():
        grouped[:, :, rows, columns] += patches[:, :, :, :, u, v]
    ph, pw = window.padding[:2]
    return padded[:, ph : ph + h, pw : pw + w]


def _empty_cols(
    n: int, c: int, window: Window, groups: int, dtype: np.dtype[np.generic]
) -> tuple[np.ndarray, np.ndarray]:
    """Unfilled cols, and the same memory seen as (G,n,OH,OW,KH,KW,c).

    cols is filled in runs of c values.  If c is small, cols is transposed in memory, so that the runs are
    along OW instead.  A matrix product takes either order.
    """
    (oh, ow), (kh, kw) = window.output, window.kernel
    shape = (groups, n * oh * ow, kh * kw * c)
    if c >= SHORT_RUN:
        cols = np.empty(shape, dtype)
        return cols, cols.reshape(groups, n, oh, ow, kh, kw, c)
    cols = np.empty((groups, shape[2], shape[1]), dtype)
    patches = cols.reshape(groups, kh, kw, c, n, oh, ow).transpose(0, 4, 5, 6, 1, 2, 3)
    return cols.swapaxes(1, 2), patches


def _by_group(images: np.ndarray, groups: int) -> np.ndarray:
    """(N,H,W,C) seen as (G,N,H,W,C/G)."""
    n, h, w, c = images.shape
    return images.reshape(n, h, w, groups, c // groups).transpose(3, 0, 1, 2, 4)


def image_chunks(images: int, bytes_per_image: int) -> Iterator[slice]:
    """Slices of the batch, of so many images that their patches take about CHUNK_BYTES."""
    step = max(1, CHUNK_BYTES // max(1, bytes_per_image))
    for start in range(0, images, step):
        yield slice(start, min(start + step, images))
