"""Where a backend reads a dataset's bytes, when it makes batches of them.

numpy and cpp read the host's array where it lies, mapped files too.  cuda reads images from the card where
they fit.  Where they do not, each batch's bytes are gathered into pinned memory and copied in a stream of
their own, while the batch before is computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from minicnn import memory
from minicnn.backends.base import Backend
from minicnn.backends.primitives import Array

if TYPE_CHECKING:
    import torch

PLACES = ("auto", "host", "device")
FREE_SHARE = 0.5
"""The share of a card's free memory that a dataset may take where nobody said where to put it."""


class Ready(NamedTuple):
    """What `make_batch` takes: images (M,C,H,W) of the backend, and which of them the batch is made of."""

    images: Array
    rows: NDArray[np.int64]


class ImageSource(Protocol):
    """Gets images to where the backend computes."""

    def fetch(self, rows: NDArray[np.int64]) -> Any:
        """Begin to get the images with these numbers there; does not wait."""

    def ready(self, fetched: Any) -> Ready:
        """What `fetch` returned, as `make_batch` takes it.  The device waits, not the host."""


class Resident:
    """All images lie where they are read."""

    def __init__(self, images: Array) -> None:
        self.images = images

    def fetch(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return rows

    def ready(self, fetched: NDArray[np.int64]) -> Ready:
        return Ready(self.images, fetched)


class Streamed:
    """The images stay in the host's memory; those of a batch are copied to the card, in a second stream."""

    def __init__(self, images: NDArray[np.uint8], *, emulated: bool) -> None:
        import torch

        self.images = images
        self._torch: Any = torch
        self._stream: Any = None if emulated else self._torch.cuda.Stream()

    def fetch(self, rows: NDArray[np.int64]) -> Array:
        torch = self._torch
        shape = (len(rows), *self.images.shape[1:])
        pinned = torch.empty(shape, dtype=torch.uint8, pin_memory=self._stream is not None)
        if len(rows):
            np.take(self.images, rows, axis=0, out=pinned.numpy(), mode="clip")
        if self._stream is None:
            return pinned
        with torch.cuda.stream(self._stream):
            return pinned.cuda(non_blocking=True)

    def ready(self, fetched: Array) -> Ready:
        if self._stream is not None:
            current = self._torch.cuda.current_stream()
            current.wait_stream(self._stream)
            fetched.record_stream(current)  # its memory is not given away before this stream has read it
        return Ready(fetched, np.arange(len(fetched)))


def image_source(
    backend: Backend, images: NDArray[np.uint8], on: str = "auto", *, beside: int = 0
) -> ImageSource:
    """Where this backend reads these images (M,C,H,W).

    Args:   on "device", "host", or "auto": the device where the images fit into half of its free memory,
            without those bytes that are needed ``beside`` them.
            The CPU's backends compute where the images lie, and so take all three alike.
    Raises: ValueError if ``on`` is another word, or if the images do not fit on the device and must
    """
    if on not in PLACES:
        raise ValueError(f"[image_source] on: expected one of {', '.join(PLACES)}, got {on}")
    if backend.name != "cuda":
        return Resident(images)
    emulated = backend.label != backend.name
    if on == "auto":
        free = memory.card_memory()
        on = "device" if free is None or images.nbytes <= FREE_SHARE * (free - beside) else "host"
    if on == "host":
        return Streamed(images, emulated=emulated)
    return Resident(_on_card(images, emulated=emulated))


def _on_card(images: NDArray[np.uint8], *, emulated: bool) -> torch.Tensor:
    """A copy, made in parts, so that a mapped file is not read into memory as a whole."""
    import torch

    try:
        there = torch.empty(images.shape, dtype=torch.uint8, device="cpu" if emulated else "cuda")
    except torch.OutOfMemoryError:
        raise ValueError(
            f"[image_source] on: expected a card with {images.nbytes:,} bytes free for the images, "
            f"got {memory.card_memory():,}; take host"
        ) from None
    step = max(1, (64 << 20) // max(1, images[:1].nbytes))
    for start in range(0, len(images), step):
        there[start : start + step].copy_(torch.from_numpy(np.array(images[start : start + step])))
    return there
