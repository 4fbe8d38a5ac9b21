"""Shuffled, augmented, normalised batches: the host draws what is done, a backend does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from minicnn.backends import Array, Backend, get_backend
from minicnn.backends.image_source import ImageSource, image_source
from minicnn.data.augment import Augment
from minicnn.data.draws import EpochAugment, mixed_labels, with_partners
from minicnn.data.images import Images
from minicnn.ops.make_batch import Table, normalized

Batch = tuple[Array, NDArray[Any]]
"""Images (B,C,H,W) of a backend; labels of the host."""

ROWS_AT_ONCE = 4096
"""About so many images' rows of numbers are made together: NumPy takes its time for every call."""


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
    mean, std = _statistics(x.shape[1], mean, std)
    return normalized(x, mean, std, dtype)


def _statistics(
    channels: int, mean: ArrayLike, std: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    if mean.shape != (channels,) or std.shape != (channels,):
        raise ValueError(f"mean and std: expected shape {(channels,)}, got {mean.shape} and {std.shape}")
    return mean, std


class Batches:
    """Batches of images, in an order that is a pure function of (seed, epoch).

    ``len`` is the number of batches in an epoch.  The last batch may be smaller than the others.  If only
    one image is left for it, that image joins the batch before it, because batch norm cannot train on a
    single image whose map is 1x1.

    Args:   mean, std (C,) of pixels in [0, 1] · shuffle False keeps the dataset's order · dtype of the
            images, float32, float64 or "bfloat16" (labels are then float32) · augment changes the images;
            with mixup or cutmix, labels are probabilities, and num_classes is needed · backend makes the
            batches, in its own arrays (None: numpy) · data_on "auto", "host" or "device" is where cuda
            reads the images, or the `ImageSource` that has them · part tells which neighbouring rows of a
            batch of so many images are made (None: all)
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
        backend: Backend | None = None,
        data_on: str | ImageSource = "auto",
        part: Callable[[int], slice] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        self.augment, self.num_classes = augment or Augment(), num_classes
        if self.augment.mixes and num_classes is None:
            name = "mixup" if self.augment.mixup else "cutmix"
            raise ValueError(f"num_classes: expected a number, which {name}'s labels need, got None")
        self.augment.check_size(*images.shape[1:])
        self.images, self.batch_size = images, batch_size
        self.mean, self.std = _statistics(images.shape[0], mean, std)
        self.dtype = "bfloat16" if dtype == "bfloat16" else np.dtype(dtype).name
        self.seed, self.shuffle = seed, shuffle
        self.backend = backend or get_backend("numpy")
        self.source = image_source(self.backend, images.x, data_on) if isinstance(data_on, str) else data_on
        self.part = part or (lambda images: slice(0, images))

    def __len__(self) -> int:
        whole, left = divmod(len(self.images), self.batch_size)
        joins_the_batch_before = left == 1 and whole > 0
        return whole if left == 0 or joins_the_batch_before else whole + 1

    def sizes(self) -> set[int]:
        """How many images the batches of an epoch have: the whole ones, and the last."""
        last = len(self.images) - (len(self) - 1) * self.batch_size
        return {self.batch_size, last} if len(self) > 1 else {last}

    def epoch(self, epoch: int, start: int = 0) -> Epoch:
        """The batches (x, y) of an epoch, from batch number ``start`` on.

        x (B,C,H,W) is normalised; y is int64 (B,), or with mixup or cutmix probabilities (B, num_classes).
        Both have the rows of ``part`` alone.
        """
        return Epoch(self, epoch, start)


class _Plan(NamedTuple):
    """What makes a batch."""

    fetched: Any
    table: Table
    labels: NDArray[Any]
    batch_labels: NDArray[np.int64]


class Epoch(Iterator[Batch]):
    """The batches of an epoch.  `prepare` may be called while a device computes with the one before.

    ``batch_labels`` are the unmixed labels of the whole batch that was given last, int64 (N,).
    """

    def __init__(self, batches: Batches, epoch: int, start: int) -> None:
        self._batches, self._number = batches, start
        count, size = len(batches.images), batches.images.shape[1:]
        self._order = np.arange(count)
        if batches.shuffle:
            self._order = np.random.default_rng([batches.seed, epoch]).permutation(count)
        self._changes = EpochAugment(batches.augment, count, size, batches.seed, epoch)
        self._tables: list[Table] = []
        """Those of the next batches, in reverse order."""
        self._plan: _Plan | None = None
        self.batch_labels = np.zeros(0, np.int64)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        self.prepare()
        plan, self._plan = self._plan, None
        if plan is None:
            raise StopIteration
        b = self._batches
        images, rows = b.source.ready(plan.fetched)
        x = b.backend.make_batch(images, rows, plan.table, b.mean, b.std, dtype=b.dtype)
        self.batch_labels = plan.batch_labels
        return x[: len(plan.labels)], plan.labels

    def prepare(self) -> None:
        """Draw what the next batch is made of, and begin to get its images to the device."""
        b = self._batches
        if self._plan is not None or self._number >= len(b):
            return
        if not self._tables:
            self._tables = self._make_tables()
        numbers, table = self._made(self._number), self._tables.pop()
        whole = self._numbers(self._number)
        part = b.part(len(whole))
        labels: NDArray[Any] = b.images.y[numbers]
        if b.augment.mixes and b.num_classes is not None:
            table = with_partners(table)
            dtype = "float32" if b.dtype == "bfloat16" else b.dtype
            labels = mixed_labels(labels, table, b.num_classes, b.images.shape[1:], dtype)
        labels = labels[: part.stop - part.start]
        self._plan = _Plan(b.source.fetch(b.images.locate(numbers)), table, labels, b.images.y[whole])
        self._number += 1

    def _numbers(self, batch: int) -> NDArray[np.int64]:
        size, last = self._batches.batch_size, batch == len(self._batches) - 1
        return self._order[batch * size : None if last else (batch + 1) * size]

    def _made(self, batch: int) -> NDArray[np.int64]:
        """The numbers of a batch's own images, and of the one that the last of them is mixed with."""
        numbers = self._numbers(batch)
        part = self._batches.part(len(numbers))
        own = numbers[part]
        if not self._batches.augment.mixes or len(own) in (0, len(numbers)):
            return own
        return np.append(own, numbers[part.stop % len(numbers)])

    def _make_tables(self) -> list[Table]:
        size = self._batches.batch_size
        end = min(self._number + max(1, ROWS_AT_ONCE // size), len(self._batches))
        parts = [self._made(batch) for batch in range(self._number, end)]
        table = self._changes.table(np.concatenate(parts))
        return np.split(table, np.cumsum([len(part) for part in parts])[:-1])[::-1]
