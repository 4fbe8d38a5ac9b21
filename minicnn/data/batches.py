"""Shuffled, normalised batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from minicnn.data.images import Images

Batch = tuple[NDArray[Any], NDArray[np.int64]]


def normalize(
    x: NDArray[np.uint8], mean: ArrayLike, std: ArrayLike, dtype: DTypeLike = "float32"
) -> NDArray[Any]:
    """(x / 255 - mean) / std per channel.

    Args:    x uint8 (N,C,H,W) · mean, std (C,) of pixels in [0, 1]
    Returns: (N,C,H,W) of ``dtype``, float32 or float64
    """
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    channels = (x.shape[1],)
    if mean.shape != channels or std.shape != channels:
        raise ValueError(f"mean and std: expected shape {channels}, got {mean.shape} and {std.shape}")
    scale = (1 / (255 * std)).astype(dtype)[:, None, None]
    shift = (-mean / std).astype(dtype)[:, None, None]
    y: NDArray[Any] = x.astype(dtype)
    y *= scale
    y += shift
    return y


class Batches:
    """Batches of images, in an order that is a pure function of (seed, epoch).

    ``len`` is the number of batches an epoch; the last may be smaller.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        *,
        mean: ArrayLike,
        std: ArrayLike,
        seed: int = 0,
        shuffle: bool = True,
        dtype: DTypeLike = "float32",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        self.images, self.batch_size = images, batch_size
        self.mean, self.std, self.dtype = mean, std, dtype
        self.seed, self.shuffle = seed, shuffle

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield (x, y) from batch number ``start`` on: x normalised (B,C,H,W), y int64 (B,)."""
        order = self._order(epoch)
        for begin in range(start * self.batch_size, len(order), self.batch_size):
            chosen = order[begin : begin + self.batch_size]
            yield normalize(self.images.x[chosen], self.mean, self.std, self.dtype), self.images.y[chosen]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.arange(len(self.images))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.images))
