"""Reader of IDX files, gzipped or not: the format of MNIST and of the datasets modelled on it.

Two zero bytes, a type byte (8: uint8), the number of dimensions, each size as a big-endian uint32,
then the values in C order. See http://yann.lecun.com/exdb/mnist.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from minicnn.data.errors import DataError
from minicnn.data.images import Images
from minicnn.files import write_atomically

_UINT8 = 8
_CHUNK = 1 << 20
_LARGEST = 1 << 32  # bytes of data in one file; EMNIST's largest has 0.55e9
_DEFLATE_RATIO = 1032  # the largest number of bytes that one byte of deflate can expand to
_GZIP_MAGIC = b"\x1f\x8b"
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

    A header that promises more than the file can hold is refused before anything is allocated, and
    no more is decompressed than the header promises.

    Raises:  DataError naming the file if it is missing, truncated, too long or of another kind
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(2) != _GZIP_MAGIC:
                file.seek(0)
                return _read(path, file, ndim, size)
            file.seek(0)
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _read(path, unpacked, ndim, size * _DEFLATE_RATIO)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: truncated or corrupt gzip file: {error}") from error


def _read(path: Path, file: IO[bytes] | gzip.GzipFile, ndim: int, most: int) -> NDArray[np.uint8]:
    """The array in the open file, out of which no more than ``most`` bytes can come."""
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
    if total > min(_LARGEST, most - len(header)):
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
