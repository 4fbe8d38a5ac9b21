"""Reader of npz:FILE, NumPy's archive of arrays: x, uint8 images, and y, their classes."""

from __future__ import annotations

import math
import os
import re
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from minicnn.data.classes import Labelled, scanned
from minicnn.data.contents import Content, Contents, Files, Span, Spans
from minicnn.data.divide import PARTS, TRAIN, Scanned
from minicnn.data.errors import DataError
from minicnn.data.parts import part_of
from minicnn.data.summary import Summary
from minicnn.memory import check_memory
from minicnn.regular_file import open_regular

MOST_IMAGES = 1 << 24
MOST_LABEL = 1 << 10
"""Bytes of a label that is a text."""

_IMAGES, _LABELS = ("x", "images", "data"), ("y", "labels", "targets")
_NAMES = ("class_names", "classes", "names")
_KEY = re.compile(
    r"(?:(?P<before>[a-z]+)_)?(?P<what>x|images|data|y|labels|targets)(?:_(?P<after>[a-z]+))?"
)
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_RATIO = 1100  # as many bytes, at most, a byte of a deflated file unpacks to
_SUFFIX = ".npy"


class _Array(NamedTuple):
    """An array in an archive: where its values begin in the file, or None if they are compressed."""

    member: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int | None

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Pixels:
    """Images that are in memory; the stamp is that of the file they came from."""

    images: dict[Path, NDArray[np.uint8]]
    of_file: tuple[int, ...]

    def read(self, path: Path) -> Content:
        return self.images[path]

    def stamp(self, path: Path) -> tuple[int, ...]:  # noqa: ARG002, all are of one file
        return self.of_file

    def only(self, paths: Iterable[Path]) -> Pixels:
        return Pixels({path: self.images[path] for path in paths}, self.of_file)


def scan_npz(name: str, summary: Summary) -> Scanned:
    """The images of x with the classes of y, or of x_train, y_train, x_test, y_test and so on.

    x is uint8 (N,H,W), (N,H,W,C) or (N,C,H,W), with C 1 or 3.  y has N numbers or texts.  An array
    ``class_names`` of texts may name the classes that y numbers from 0.  Nothing is unpickled.

    Raises: DataError naming the file and the array that is wrong
    """
    path = Path(name)
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            return _scan(path, file, archive, summary)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (
        zipfile.BadZipFile,
        ValueError,
        EOFError,
        struct.error,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise DataError(f"{path}: expected an intact .npz file: {error}") from error
    except Exception as error:  # zlib's own
        raise DataError(f"{path}: truncated or corrupt: {error}") from error


def _scan(path: Path, file: BinaryIO, archive: zipfile.ZipFile, summary: Summary) -> Scanned:
    arrays = {member.filename.removesuffix(_SUFFIX): member for member in archive.infolist()}
    parts, names = _parts(path, arrays, summary)
    class_names = None
    if names is not None:
        class_names = _labels(path, archive, _array(path, file, archive, names), names.filename)
    labelled: dict[str, Labelled] = {}
    places: dict[Path, Span] = {}
    pixels: dict[Path, NDArray[np.uint8]] = {}
    for part, (x_member, y_member) in parts.items():
        x, y = _array(path, file, archive, x_member), _array(path, file, archive, y_member)
        shape, channels_first = _layout(path, x)
        labels = _labels(path, archive, y, y_member.filename)
        if len(labels) != x.shape[0]:
            raise DataError(f"{path}: expected {x.shape[0]:,} labels, one an image, got {len(labels):,}")
        key = x_member.filename.removesuffix(_SUFFIX)
        paths = [path / key / f"{number:08}" for number in range(len(labels))]
        if class_names is not None:
            numbered, known = y.dtype.kind in "iub", set(class_names)
            labels = [
                label if not numbered and label in known else _named(path, label, class_names)
                for label in labels
            ]
        labelled[part] = list(zip(paths, labels, strict=True))
        if x.start is not None:
            step = math.prod(shape)
            places |= {
                one: Span(path, x.start + number * step, step, shape, channels_first)
                for number, one in enumerate(paths)
            }
        else:
            values = _unpacked(path, archive, x).reshape(x.shape)
            values = values.transpose(0, 2, 3, 1) if channels_first else values
            values = values[..., 0] if values.ndim == 4 and values.shape[3] == 1 else values
            pixels |= dict(zip(paths, values, strict=True))
    stamp = Files().stamp(path)
    contents: Contents = Pixels(pixels, stamp) if pixels else Spans(places, {path: stamp})
    if pixels and places:
        raise DataError(f"{path}: expected all arrays compressed, or none")
    sources = f"parts by the names of arrays: {', '.join(parts)}" if len(parts) > 1 else ""
    return scanned(path, path, labelled, contents, class_names, sources)


def _parts(
    path: Path, arrays: dict[str, zipfile.ZipInfo], summary: Summary
) -> tuple[dict[str, tuple[zipfile.ZipInfo, zipfile.ZipInfo]], zipfile.ZipInfo | None]:
    """The members of images and labels of each part, and that of the classes' names."""
    found: dict[str, dict[str, zipfile.ZipInfo]] = {}
    names = None
    for key, member in arrays.items():
        match = _KEY.fullmatch(key.lower())
        word = match and (match["before"] or match["after"])
        part = (part_of(word) if word else TRAIN) if match else None
        if key.lower() in _NAMES:
            names = member
        elif match and part:
            what = "x" if match["what"] in _IMAGES else "y"
            if what in found.setdefault(part, {}):
                raise DataError(f"{path}: expected one {what} of {part} images, got {key} too")
            found[part][what] = member
        else:
            summary.pass_over("no array of images or labels", path / key)
    for part in found:
        if missing := {"x", "y"} - found[part].keys():
            raise DataError(f"{path}: expected x and y, got no {missing.pop()} of {part} images")
    if not found:
        got = ", ".join(arrays) or "none"
        raise DataError(
            f"{path}: expected the arrays x and y, or x_train, y_train and more, got {got:.200}"
        )
    return {part: (found[part]["x"], found[part]["y"]) for part in PARTS if part in found}, names


def _array(path: Path, file: BinaryIO, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> _Array:
    """An array by its header, which is checked against the size of the member."""
    with archive.open(member) as opened:
        version = npy.read_magic(opened)
        if version not in ((1, 0), (2, 0)):
            raise DataError(f"{path}: {member.filename}: expected a .npy file of version 1 or 2")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(opened)
        header = opened.tell()
    if fortran and len(shape) > 1:
        raise DataError(f"{path}: {member.filename}: expected an array in C order: np.ascontiguousarray")
    if dtype.hasobject:
        raise DataError(
            f"{path}: {member.filename}: expected numbers or texts, got objects, which is unsafe"
        )
    array = _Array(member, shape, dtype, None)
    if header + array.size != member.file_size or member.file_size > max(
        1 << 24, _RATIO * member.compress_size
    ):
        raise DataError(
            f"{path}: {member.filename}: truncated or corrupt: expected {header + array.size:,} bytes for "
            f"shape {shape}, got {member.file_size:,}"
        )
    if member.compress_type != zipfile.ZIP_STORED:
        return array
    file.seek(member.header_offset)
    magic, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    start = member.header_offset + _LOCAL_HEADER.size + name + extra + header
    if magic != b"PK\3\4" or start + array.size > os.fstat(file.fileno()).st_size:
        raise DataError(f"{path}: {member.filename}: truncated or corrupt")
    return array._replace(start=start)


def _layout(path: Path, x: _Array) -> tuple[tuple[int, ...], bool]:
    """The shape of an image as it is stored, and whether its channels come first."""
    where = f"{path}: {x.member.filename}"
    if x.dtype != np.uint8:
        raise DataError(f"{where}: expected uint8 from 0 to 255, got {x.dtype}")
    if len(x.shape) not in (3, 4) or min(x.shape) < 1 or x.shape[0] > MOST_IMAGES:
        raise DataError(f"{where}: expected images (N,H,W), (N,H,W,C) or (N,C,H,W), got {x.shape}")
    shape = x.shape[1:]
    if len(shape) == 2:
        return shape, False
    first, last = shape[0] in (1, 3), shape[2] in (1, 3)
    if first == last:
        what = "both may be channels" if first else "neither is 1 or 3 channels"
        raise DataError(
            f"{where}: expected (N,H,W,C) or (N,C,H,W) with C 1 or 3, got {x.shape}, where {what}"
        )
    return shape, first


def _labels(path: Path, archive: zipfile.ZipFile, y: _Array, name: str) -> list[str]:
    count = math.prod(y.shape)
    if y.shape not in ((count,), (count, 1)) or count > MOST_IMAGES:
        raise DataError(f"{path}: {name}: expected labels (N,), got {y.shape}")
    if y.dtype.kind not in "iubUS" or y.dtype.itemsize > MOST_LABEL:
        raise DataError(f"{path}: {name}: expected whole numbers or texts, got {y.dtype}")
    values = _unpacked(path, archive, y).view(y.dtype) if count else np.empty(0, y.dtype)
    if y.dtype.kind == "S":
        return [value.decode("utf-8", "replace") for value in values.tolist()]
    return [str(int(value) if y.dtype.kind == "b" else value) for value in values.tolist()]


def _named(path: Path, label: str, names: list[str]) -> str:
    """The class that a label means, which is a number from 0."""
    if not (label.isdecimal() and int(label) < len(names)):
        raise DataError(f"{path}: expected labels from 0 to {len(names) - 1}, got {label:.40}")
    return names[int(label)]


def _unpacked(path: Path, archive: zipfile.ZipFile, array: _Array) -> NDArray[np.uint8]:
    """The bytes of an array's values; memory grows with what is there."""
    check_memory(array.size, f"{path}: unpacking {array.member.filename}", "np.savez stores it unpacked")
    content = bytearray()
    with archive.open(array.member) as opened:
        opened.read(array.member.file_size - array.size)
        while chunk := opened.read(1 << 20):
            content += chunk
    if len(content) != array.size:
        raise DataError(f"{path}: {array.member.filename}: truncated")
    return np.frombuffer(content, np.uint8)
