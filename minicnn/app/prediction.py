"""The logits of images, normalised, predicted batch by batch, and averaged over the views of --tta; and
whether images are as bright as those of the training."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from minicnn import data
from minicnn.backends import Array
from minicnn.backends.image_source import ImageSource, Ready, image_source
from minicnn.data.progress import OnProgress, ignore
from minicnn.data.views import views
from minicnn.distributed import ALONE, Group
from minicnn.graph import run
from minicnn.graph.cast import input_dtype
from minicnn.ops.make_batch import Table

BYTES_OF_A_BATCH = 8 << 20
"""Bytes of images, before they are normalised, that are predicted together: of large images, fewer are."""
FAR = 0.8
"""How far an image's mean may be from that of the training's pixels, in their standard deviations."""

T = TypeVar("T")

_Queued = list[tuple[float, Any]]
"""The logits of each view of a batch, wherever they are computed, and the view's share of the mean."""


class NotFinite(ValueError):
    """Finite weights gave logits that are not: they are too large."""


def predict_images(
    model: Any, images: data.Images | np.ndarray, mean: Any, std: Any, progress: OnProgress = ignore,
    batch_size: int = 256, tta: str = "none", fuse: bool = True, group: Group = ALONE,
    source: ImageSource | None = None,
) -> np.ndarray:  # fmt: skip
    """Logits (N,K) of images, or of uint8 (N,C,H,W), normalised a batch at a time by the model's backend.

    With ``tta`` they are the means over the image's `views`.  ``progress`` is called before each batch, and
    may raise.  The processes of a ``group`` take turns with the batches, and all get all logits; all call
    ``progress`` equally often, so that it may wait for the others.

    The images are read from ``source``, which is that of all rows of ``images.x``.  Without one, cuda gets
    each batch from the host: every image is read once.

    Raises: NotFinite if a logit is infinite or NaN
    """
    if isinstance(images, np.ndarray):
        images = data.Images(images, np.zeros(len(images), np.int64))
    source = source or image_source(model.backend, images.x, "host")
    size = images_of_a_batch(images.shape, batch_size)
    predictor = _Predictor(model, (len(images), *images.shape), (mean, std), list(views(size, tta)), fuse)
    starts = range(group.rank * size, len(images), group.size * size)
    batches = [np.arange(start, min(start + size, len(images))) for start in starts]
    own = list(zip(starts, _in_turn(predictor, images, source, batches, progress), strict=True))
    if len(batches) < math.ceil(len(images) / (group.size * size)):
        progress(len(images), len(images))
    in_order = sorted((part for parts in group.gather(own) for part in parts), key=lambda part: part[0])
    found = np.concatenate([logits for _, logits in in_order])
    finite = int(np.isfinite(found).all(axis=1).sum())
    if finite < len(found):
        raise NotFinite(
            f"the model gives {len(found) - finite} of {len(found)} images numbers that are not finite"
        )
    return found


def images_of_a_batch(shape: tuple[int, int, int], batch_size: int = 256) -> int:
    """How many images (C,H,W) are normalised and predicted at once: at most ``batch_size``."""
    return max(1, min(batch_size, BYTES_OF_A_BATCH // math.prod(shape)))


def _in_turn(
    predictor: _Predictor, images: data.Images, source: ImageSource, batches: list[NDArray[np.int64]],
    progress: OnProgress,
) -> Iterator[np.ndarray]:  # fmt: skip
    """The logits of each batch, given as numbers of images.

    While a device computes with a batch, the images of the next one come, and the host reads the logits of
    the one before.
    """
    coming = deque(source.fetch(images.locate(batch)) for batch in batches[:1])
    queued: deque[_Queued] = deque()
    for number, batch in enumerate(batches):
        progress(int(batch[0]), len(images))
        queued.append(predictor.queue(source.ready(coming.popleft())))
        coming.extend(source.fetch(images.locate(batch)) for batch in batches[number + 1 : number + 2])
        if len(queued) > 1:
            yield predictor.read(queued.popleft())
    yield from map(predictor.read, queued)


class _Predictor:
    """A model in evaluation.  ``shape`` is that of all images together, ``seen`` the views of a batch."""

    def __init__(
        self, model: Any, shape: tuple[int, ...], statistics: tuple[Any, Any],
        seen: list[tuple[float, Table]], fuse: bool,
    ) -> None:  # fmt: skip
        self._backend, self._seen = model.backend, seen
        self._mean, self._std = (np.asarray(numbers, np.float64) for numbers in statistics)
        self._prepared = model.prepared(shape) if fuse else None
        self._dtype = model.dtype
        if self._prepared is None:
            self._graph = model.graph(training=False, fuse=fuse, input_shape=shape)
            self._dtype = input_dtype(self._graph, model.dtype)

    def queue(self, ready: Ready) -> _Queued:
        """Have the logits of these images computed; a device is not waited for."""
        logits = []
        with np.errstate(over="ignore", invalid="ignore"):  # the result shows it
            for share, table in self._seen:
                x = self._backend.make_batch(
                    ready.images, ready.rows, table[: len(ready.rows)], self._mean, self._std,
                    dtype=self._dtype,
                )  # fmt: skip
                logits.append((share, self._forward(x)))
        return logits

    def _forward(self, x: Array) -> Array:
        if self._prepared is not None:
            return self._prepared.run(self._backend.to_numpy(x))
        return run.forward(self._graph, self._backend, x, False)[0]

    def read(self, queued: _Queued) -> np.ndarray:
        """The logits (B,K), averaged over the views."""
        read = self._backend.to_numpy if self._prepared is None else np.asarray
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(np.sum([share * read(logits) for share, logits in queued], axis=0))


class Brightness:
    """Counts images that are far brighter or darker than the training images; ``str`` tells of them.

    An image is ``far`` where its mean differs from the mean of the training's pixels by more than `FAR`
    of their standard deviations, both averaged over the channels.  Of the test images of Fashion-MNIST's
    sample that holds for 1 %, and for 85 % of them inverted.
    """

    def __init__(self, mean: list[float], std: list[float]) -> None:
        self.mean, self.std = np.array(mean), np.array(std)
        self.images = self.far = 0
        self._first = ""

    def noting(self, found: Iterable[tuple[str, T]]) -> Generator[tuple[str, T]]:
        """The same paths and images, or errors in their place, each counted as it goes by."""
        for path, image in found:
            if isinstance(image, np.ndarray):
                self.note(path, image)
            yield path, image

    def note(self, path: str | Path, image: np.ndarray) -> None:
        """Count an image (C,H,W) uint8."""
        self.images += 1
        mean = image.mean(axis=(1, 2)) / 255
        if abs((mean - self.mean).mean()) > FAR * self.std.mean():
            self.far += 1
            self._first = self._first or f"{path} has mean {mean.mean():.2f}"

    def __str__(self) -> str:
        return (
            f"{self.far} of {self.images} images are far brighter or darker than the training images, "
            f"whose mean is {self.mean.mean():.2f} ({self._first})"
        )
