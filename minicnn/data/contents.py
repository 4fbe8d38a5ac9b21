"""Where the images of a dataset lie: files of their own, or parts of larger files."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from minicnn.regular_file import open_regular, read_regular

MOST_BYTES = 256 << 20
"""The largest image file that is read."""

Content = bytes | NDArray[np.uint8]
"""A file's bytes, to be decoded, or pixels: (H,W) of grey or (H,W,3) of RGB."""


class Contents(Protocol):
    """Reads images by their path.  A path names one image, and need not be a file's own.

    Objects are pickled, to read in other processes.
    """

    def read(self, path: Path) -> Content:
        """What is stored of an image.  Raises OSError, ValueError."""

    def stamp(self, path: Path) -> tuple[int, ...]:
        """Numbers that are others once the image has changed, made without reading it.  Raises OSError."""

    def only(self, paths: Iterable[Path]) -> Contents:
        """What is needed to read these images and no others."""


@dataclass(frozen=True)
class Files:
    """Each image is a file of its own."""

    def read(self, path: Path) -> Content:
        return read_regular(path, MOST_BYTES)

    def stamp(self, path: Path) -> tuple[int, ...]:
        status = os.stat(path)  # noqa: PTH116, twice as fast as Path.stat for many thousands of files
        return status.st_size, status.st_mtime_ns

    def only(self, paths: Iterable[Path]) -> Files:  # noqa: ARG002
        return self


class Span(NamedTuple):
    """A part of a file: bytes to be decoded, or pixels of a ``shape``, (H,W), (H,W,C) or (C,H,W)."""

    file: Path
    start: int
    size: int
    shape: tuple[int, ...] | None = None
    channels_first: bool = False


@dataclass(frozen=True)
class Spans:
    """Each image is a part of a file, such as a member of an archive; ``stamps`` are those of the files."""

    places: dict[Path, Span]
    stamps: dict[Path, tuple[int, ...]]

    def read(self, path: Path) -> Content:
        span = self.places[path]
        if span.size > MOST_BYTES:
            raise OSError(
                errno.EFBIG, f"expected at most {MOST_BYTES:,} bytes, got {span.size:,}", str(path)
            )
        with open_regular(span.file) as file:
            file.seek(span.start)
            content = file.read(span.size)
        if len(content) < span.size:
            raise OSError(errno.EIO, f"expected {span.size:,} bytes, got {len(content):,}", str(path))
        if span.shape is None:
            return content
        pixels = np.frombuffer(content, np.uint8).reshape(span.shape)
        return _plain(pixels.transpose(1, 2, 0) if span.channels_first else pixels)

    def stamp(self, path: Path) -> tuple[int, ...]:
        span = self.places[path]
        return *self.stamps[span.file], span.start, span.size

    def only(self, paths: Iterable[Path]) -> Spans:
        return Spans({path: self.places[path] for path in paths}, {})


def _plain(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H,W) of pixels whose channel is one."""
    return pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
