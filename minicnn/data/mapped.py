"""Arrays in files that are mapped into memory: reading ahead, and giving memory back.

Pages of a mapped file count as memory of the process once they are read, though the system can take them
back at any time.  A process that reads a whole file would look, and be counted, as large as the file.
"""

from __future__ import annotations

import math
import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT = 256 << 20
"""Bytes that are read of a file before the process gives its pages back; the system still caches them."""


class Mapping(mmap.mmap):
    """A whole file, mapped for reading."""

    _read = 0

    def announce(self, x: NDArray[Any], rows: NDArray[np.int64]) -> None:
        """Rows of x, an array in this file, are about to be read: have the system read them ahead.

        Once as many bytes as KEPT were announced, what was read before is given back first.
        """
        size = math.prod(x.shape[1:]) * x.itemsize
        self._read += size * len(rows)
        if self._read > KEPT:
            self._advise("MADV_DONTNEED", 0, len(self))
            self._read = size * len(rows)
        start = x.ctypes.data - np.frombuffer(self, np.uint8).ctypes.data
        for first, last in _runs(np.sort(rows)):
            begin = (start + first * size) // mmap.PAGESIZE * mmap.PAGESIZE
            self._advise("MADV_WILLNEED", begin, start + (last + 1) * size - begin)

    def _advise(self, name: str, start: int, length: int) -> None:
        """`mmap.madvise`, where the system has it."""
        if hasattr(mmap, name):
            self.madvise(getattr(mmap, name), start, length)


def map_array(descriptor: int, offset: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A read-only uint8 array in an open file.  Raises ValueError if the file is shorter than that."""
    if os.fstat(descriptor).st_size < offset + math.prod(shape):
        raise ValueError("the file is too short")
    mapping = Mapping(descriptor, 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapping, np.uint8, math.prod(shape), offset).reshape(shape)


def mapping_of(x: NDArray[Any]) -> Mapping | None:
    """The mapping that has an array's values; None if they are in memory."""
    owner: Any = x
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    return owner if isinstance(owner, Mapping) else None


def _runs(rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First and last of each run of rows, ascending, that follow one another."""
    if not len(rows):
        return []
    breaks = np.flatnonzero(np.diff(rows) > 1)
    firsts = rows[np.concatenate([[0], breaks + 1])]
    lasts = rows[np.concatenate([breaks, [len(rows) - 1]])]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
