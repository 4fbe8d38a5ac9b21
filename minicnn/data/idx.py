"""Reader of IDX files, gzipped or not: the format of MNIST and of the datasets modelled on it.

Two zero bytes, a type byte (8: uint8), the number of dimensions, each size as a big-endian uint32,
then the values in C order. See http://yann.lecun.com/exdb/mnist.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from minicnn.data.errors import DataError
from minicnn.data.gunzip import Gunzip
from minicnn.data.images import Images
from minicnn.files import write_atomically
from minicnn.regular_file import open_regular

MOST_IMAGES = 1 << 21
"""The most images or labels of one file that are believed; EMNIST's largest file has 814,255."""

MOST_SIDE = 4096
"""The most pixels along a side that are believed."""

MOST_BYTES = 2 << 30
"""The most bytes of a file, packed or not, and of its data; EMNIST's largest has 0.55e9."""

_UINT8 = 8
_CHUNK = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_ANY_FILE = 16 << 20  # bytes that any gzip file may unpack to
_RATIO = 100  # bytes that a byte of a larger one may unpack to; MNIST's images have 5
_OTHER_NAMES = {"test-images": "t10k-images", "test-labels": "t10k-labels"}


def find_idx(folder: Path, name: str) -> Path | None:
    """The file in ``folder`` of this name, or with one of the names that people and archives give it.

    ``train-images-idx3-ubyte`` may be called ``train-images.idx3-ubyte``, with or without ``.gz``, in small
    or capital letters, and may lie in a folder that is called so; ``t10k`` may be called ``test``.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    alike = _alike(folder, name)
    inside = [path for entry in alike if entry.is_dir() for path in _alike(entry, name)]
    return next((path for path in alike + inside if path.is_file()), None)


def _alike(folder: Path, name: str) -> list[Path]:
    """What a folder has under one of a file's usual names; nothing, if it cannot be looked into."""
    try:
        return sorted(entry for entry in folder.iterdir() if _usual_name(entry.name) == name)
    except OSError:
        return []


def _usual_name(name: str) -> str:
    """A file's name as the dataset's own site spells it."""
    usual = re.sub("[ ._-]+", "-", name.lower().removesuffix(".gz"))
    for other, own in _OTHER_NAMES.items():
        if usual.startswith(other):
            return own + usual.removeprefix(other)
    return usual


def read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """The uint8 array of ``ndim`` dimensions in an IDX file.

    A header that claims more than a dataset has, or than the file can hold, is refused before anything is
    allocated.  Memory grows with what is really there, and no more is unpacked than the header claims.

    Raises:  DataError naming the file if it is missing, truncated, too long or of another kind
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MOST_BYTES:
                raise DataError(f"{path}: expected at most {MOST_BYTES:,} bytes, got {size:,}")
            packed = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            if packed:
                return _read(path, Gunzip(file), ndim, max(_ANY_FILE, size * _RATIO))
            return _read(path, file, ndim, size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: truncated or corrupt gzip file: {error}") from error


def _read(path: Path, file: BinaryIO | Gunzip, ndim: int, most: int) -> NDArray[np.uint8]:
    """The array in the open file, out of which no more than ``most`` bytes are to come."""
    header = file.read(4 + 4 * ndim)
    magic = bytes([0, 0, _UINT8, ndim])
    if header[:4] != magic:
        raise DataError(
            f"{path}: expected an IDX file with magic {magic.hex()}, got {header[:4].hex() or 'nothing'}"
        )
    if len(header) < 4 + 4 * ndim:
        raise DataError(f"{path}: expected a header of {4 + 4 * ndim} bytes, got {len(header)}")
    shape = struct.unpack(f">{ndim}I", header[4:])
    if min(shape) < 1:
        raise DataError(f"{path}: expected sizes of at least 1, got shape {shape}")
    total = math.prod(shape)
    if shape[0] > MOST_IMAGES or max(shape[1:], default=1) > MOST_SIDE or total >= MOST_BYTES:
        raise DataError(
            f"{path}: expected at most {MOST_IMAGES:,} images or labels, {MOST_SIDE:,} pixels along a side "
            f"and less than {MOST_BYTES:,} bytes, got shape {shape}"
        )
    if total > most - len(header):
        raise DataError(f"{path}: truncated or corrupt: shape {shape} needs {total} bytes of data")
    data = bytearray()
    while len(data) < total and (chunk := file.read(min(_CHUNK, total - len(data)))):
        data += chunk
    if len(data) < total:
        raise DataError(f"{path}: truncated: shape {shape} needs {total} bytes of data, got {len(data)}")
    if file.read(1):  # at the end this also verifies gzip's checksum
        raise DataError(f"{path}: expected {total} bytes of data for shape {shape}, got more")
    return np.frombuffer(data, np.uint8).reshape(shape)


def read_idx_pair(images: Path, labels: Path, num_classes: int) -> Images:
    """An IDX file of images (N,H,W) and one of labels (N,) from 0 to num_classes - 1.

    Raises:  DataError naming the file
    """
    x, y = read_idx(images, 3), read_idx(labels, 1)
    if len(x) != len(y):
        raise DataError(f"{labels}: expected {len(x)} labels, as many as images in {images}, got {len(y)}")
    check_labels(labels, y, num_classes)
    return Images(x[:, None], y.astype(np.int64))


def check_labels(path: Path, y: NDArray[np.integer], num_classes: int) -> None:
    """Raise DataError, naming the file, unless every label is from 0 to num_classes - 1."""
    wrong = y[(y < 0) | (y >= num_classes)]
    if wrong.size:
        raise DataError(f"{path}: expected labels from 0 to {num_classes - 1}, got {int(wrong[0])}")


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Write a gzipped IDX file; the same array always gives the same bytes."""
    header = bytes([0, 0, _UINT8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    write_atomically(path, gzip.compress(header + array.tobytes(), compresslevel=9, mtime=0))
