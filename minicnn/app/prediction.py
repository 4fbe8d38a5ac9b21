"""The logits of images, normalised, predicted batch by batch, and averaged over the views of --tta; and
whether images are as bright as those of the training."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from minicnn import data
from minicnn.backends.image_source import Ready, image_source
from minicnn.data.progress import OnProgress, ignore
from minicnn.data.views import views
from minicnn.distributed import ALONE, Group
from minicnn.graph import run
from minicnn.graph.cast import input_dtype
from minicnn.ops.make_batch import Table

IMAGES_AT_ONCE = 1000
"""Images that go to the device together, if they are small."""
BYTES_AT_ONCE, BYTES_OF_A_BATCH = 32 << 20, 8 << 20
"""Bytes of images, before they are normalised, that are so: of larger images, fewer are taken together."""
FAR = 0.8
"""How far an image's mean may be from that of the training's pixels, in their standard deviations."""

T = TypeVar("T")


class NotFinite(ValueError):
    """Finite weights gave logits that are not: they are too large."""


def predict_images(
    model: Any, images: data.Images | np.ndarray, mean: Any, std: Any, progress: OnProgress = ignore,
    batch_size: int = 256, tta: str = "none", fuse: bool = True, group: Group = ALONE,
) -> np.ndarray:  # fmt: skip
    """Logits (N,K) of images, or of uint8 (N,C,H,W), normalised a batch at a time by the model's backend.

    With ``tta`` they are the means over the image's `views`.  ``progress`` is called before each part, and
    may raise.  The processes of a ``group`` take turns with the batches, and all get all logits.

    Raises: NotFinite if a logit is infinite or NaN
    """
    if isinstance(images, np.ndarray):
        images = data.Images(images, np.zeros(len(images), np.int64))
    forward, dtype = _forward(model, (len(images), *images.shape), fuse)
    statistics = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    together, batch_size = images_together(images.shape, batch_size)
    parts: list[tuple[int, np.ndarray]] = []
    done = batches = 0
    for x in images.pieces(together):
        progress(done, len(images))
        source = image_source(model.backend, x)
        ready = source.ready(source.fetch(np.arange(len(x))))
        seen = list(views(len(x), tta))
        for start in range(0, len(x), batch_size):
            if batches % group.size == group.rank:
                part = slice(start, start + batch_size)
                parts.append(
                    (done + start, _predicted(model, forward, dtype, ready, seen, statistics, part))
                )
            batches += 1
        done += len(x)
    in_order = sorted((part for own in group.gather(parts) for part in own), key=lambda part: part[0])
    found = np.concatenate([logits for _, logits in in_order])
    finite = int(np.isfinite(found).all(axis=1).sum())
    if finite < len(found):
        raise NotFinite(
            f"the model gives {len(found) - finite} of {len(found)} images numbers that are not finite"
        )
    return found


def _forward(model: Any, shape: tuple[int, ...], fuse: bool) -> tuple[Callable[[Any], np.ndarray], Any]:
    """The logits of the backend's arrays of images, and the dtype that these must have.

    ``shape`` is that of all images together.
    """
    prepared = model.prepared(shape) if fuse else None
    if prepared is not None:
        return lambda x: prepared.run(model.backend.to_numpy(x)), model.dtype
    graph = model.graph(training=False, fuse=fuse, input_shape=shape)

    def forward(x: Any) -> np.ndarray:
        logits: np.ndarray = model.backend.to_numpy(run.forward(graph, model.backend, x, False)[0])
        return logits

    return forward, input_dtype(graph, model.dtype)


def _predicted(
    model: Any, forward: Callable[[Any], np.ndarray], dtype: Any, ready: Ready,
    seen: list[tuple[float, Table]], statistics: tuple[np.ndarray, np.ndarray], part: slice,
) -> np.ndarray:  # fmt: skip
    """Logits (B,K) of these images, averaged over the views, each a share and a table (N,)."""
    logits = []
    with np.errstate(over="ignore", invalid="ignore"):  # the result shows it
        for share, table in seen:
            x = model.backend.make_batch(
                ready.images, ready.rows[part], table[part], *statistics, dtype=dtype
            )
            logits.append(share * forward(x))
        return np.asarray(np.sum(logits, axis=0))


def images_together(shape: tuple[int, int, int], batch_size: int = 256) -> tuple[int, int]:
    """How many images (C,H,W) go to the device together, and how many of them are normalised and predicted
    at once: the first is whole batches of the second, which is at most ``batch_size``.
    """
    size = math.prod(shape)
    batch = max(1, min(batch_size, BYTES_OF_A_BATCH // size))
    if IMAGES_AT_ONCE * size <= BYTES_AT_ONCE:
        return max(IMAGES_AT_ONCE, batch), batch
    return max(BYTES_AT_ONCE // size // batch * batch, batch), batch


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
