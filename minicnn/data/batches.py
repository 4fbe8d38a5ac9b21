"""Shuffled, augmented, normalised batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from minicnn.data.augment import Augment, EpochAugment
from minicnn.data.images import Images

Batch = tuple[NDArray[Any], NDArray[Any]]


def normalize(
    x: NDArray[Any], mean: ArrayLike, std: ArrayLike, dtype: DTypeLike = "float32"
) -> NDArray[Any]:
    """(x / 255 - mean) / std per channel.

    Args:    x (N,C,H,W), uint8, or float32 with values from 0 to 255 · mean, std (C,) of pixels in [0, 1]
             dtype float32 or float64
    Returns: (N,C,H,W) of ``dtype``
    Raises:  ValueError if mean or std is not of shape (C,)
    Torch:   torchvision.transforms.functional.normalize(x / 255, mean, std)
    """
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    channels = (x.shape[1],)
    if mean.shape != channels or std.shape != channels:
        raise ValueError(f"mean and std: expected shape {channels}, got {mean.shape} and {std.shape}")
    scale = (1 / (255 * std)).astype(dtype)[:, None, None]
    shift = (-mean / std).astype(dtype)[:, None, None]
    y: NDArray[Any] = np.multiply(x, scale, dtype=dtype)
    y += shift
    return y


class Batches:
    """Batches of images, in an order that is a pure function of (seed, epoch).

    ``len`` is the number of batches in an epoch.  The last batch may be smaller than the others.  If only
    one image is left for it, that image joins the batch before it, because batch norm cannot train on a
    single image whose map is 1x1.

    Args:   mean, std (C,) of pixels in [0, 1] · shuffle False keeps the dataset's order · dtype of the
            batches, float32 or float64 · augment changes the images; with mixup, labels are probabilities,
            and num_classes is needed
    Raises: ValueError naming the argument that is wrong
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
        augment: Augment | None = None,
        num_classes: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        self.augment, self.num_classes = augment or Augment(), num_classes
        if self.augment.mixup and num_classes is None:
            raise ValueError("num_classes: expected a number, which mixup's labels need, got None")
        self.augment.check_size(*images.shape[1:])
        self.images, self.batch_size = images, batch_size
        self.mean, self.std, self.dtype = mean, std, dtype
        self.seed, self.shuffle = seed, shuffle

    def __len__(self) -> int:
        whole, left = divmod(len(self.images), self.batch_size)
        joins_the_batch_before = left == 1 and whole > 0
        return whole if left == 0 or joins_the_batch_before else whole + 1

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches (x, y) of an epoch, from batch number ``start`` on.

        x (B,C,H,W) is normalised; y is int64 (B,), or with mixup probabilities (B, num_classes).
        """
        order = self._order(epoch)
        changes = EpochAugment(self.augment, len(order), self.mean, self.seed, epoch)
        for number in range(start, len(self)):
            begin = number * self.batch_size
            chosen = order[begin : None if number == len(self) - 1 else begin + self.batch_size]
            pixels = changes.images(self.images.take(chosen), chosen)
            x, y = normalize(pixels, self.mean, self.std, self.dtype), self.images.y[chosen]
            if self.augment.mixup and self.num_classes is not None:
                yield changes.mixed(x, y, chosen, self.num_classes)
            else:
                yield x, y

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.arange(len(self.images))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.images))
