"""Arrays in files that are mapped into memory: reading ahead, and giving memory back.

Pages of a mapped file count as memory of the process once they are read, though the system can take them
back at any time.  A process that reads a whole file would look, and be counted, as large as the file.
"""

from __future__ import annotations

import math
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT = 128 << 20
"""Bytes of a file that stay in the process before it gives them back; the system still caches them."""

_STATM = Path("/proc/self/statm")


class Mapping(mmap.mmap):
    """A whole file, mapped for reading."""

    _announced = _floor = 0

    def announce(self, x: NDArray[Any], rows: NDArray[np.int64]) -> None:
        """Rows of x, an array in this file, are about to be read: have the system read them ahead.

        Once what was read before takes more memory than KEPT, it is given back first.
        """
        size = math.prod(x.shape[1:]) * x.itemsize
        if self._taken() > KEPT:
            self._advise("MADV_DONTNEED", 0, len(self))
            self._floor, self._announced = _resident_files() or 0, 0
        self._announced += size * len(rows)
        start = x.ctypes.data - np.frombuffer(self, np.uint8).ctypes.data
        for first, last in _runs(np.sort(rows)):
            begin = (start + first * size) // mmap.PAGESIZE * mmap.PAGESIZE
            self._advise("MADV_WILLNEED", begin, start + (last + 1) * size - begin)

    def _taken(self) -> int:
        """Bytes of memory that reading has taken: the system maps more around each page that is read.

        Where the system does not tell, what was announced has to do.
        """
        resident = _resident_files()
        if resident is None:
            return self._announced
        self._floor = min(self._floor or resident, resident)
        return resident - self._floor

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


def _resident_files() -> int | None:
    """Bytes of all mapped files that are in this process's memory; None where the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[2]) * mmap.PAGESIZE
    except OSError:
        return None


def _runs(rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First and last of each run of rows, ascending, that follow one another."""
    if not len(rows):
        return []
    breaks = np.flatnonzero(np.diff(rows) > 1)
    firsts = rows[np.concatenate([[0], breaks + 1])]
    lasts = rows[np.concatenate([breaks, [len(rows) - 1]])]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
