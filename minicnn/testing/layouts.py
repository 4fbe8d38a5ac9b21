"""The same values in unusual memory layouts, which `Backend.asarray` must accept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def negative_strides(a: np.ndarray) -> np.ndarray:
    backwards = (slice(None, None, -1),) * a.ndim
    return np.ascontiguousarray(a[backwards])[backwards]


def every_second(a: np.ndarray) -> np.ndarray:
    wide = np.zeros([2 * size for size in a.shape], a.dtype)
    view: np.ndarray = wide[(slice(None, None, 2),) * a.ndim] if a.ndim else wide
    view[...] = a
    return view


def channels_last(a: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) if a.ndim > 1 else a


def fortran_order(a: np.ndarray) -> np.ndarray:
    return np.asfortranarray(a)


def read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


def foreign_byte_order(a: np.ndarray) -> np.ndarray:
    return a.astype(a.dtype.newbyteorder("S"))


LAYOUTS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    negative_strides, every_second, channels_last, fortran_order, read_only, foreign_byte_order,
)  # fmt: skip
