"""How far a result may differ from the float64 oracle: one function for all operations.

Comparisons raise AssertionError with what was expected and what came.  They do not use ``assert``, which
``python -O`` would skip.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from minicnn.shapes import is_bfloat16

SAFETY = 16
"""Leaves room for the constant factors of blocked summation and of Winograd's transforms."""


class Error(NamedTuple):
    """How far results differ from what was expected; both numbers are 0 if they are equal."""

    relative: float
    """The largest difference, relative to the largest element expected of the same array."""
    ulps: float
    """The same in units in the last place of that largest element, in the result's dtype."""


def tolerance(dtype: Any, terms: int) -> float:
    """The largest error allowed, relative to the largest element of the result.

    The rounding errors of a sum of ``terms`` products are nearly independent, and so grow with the square
    root of their number: eps * sqrt(terms), times a constant.  With ``terms`` = 0 the result must be exact:
    values are only moved, or are whole numbers so small that no sum of them is rounded.

    In float64 the tolerance is below 1e-10 for every case of the table.
    """
    return SAFETY * float(np.finfo(dtype).eps) * math.sqrt(terms)


def require(condition: object, message: str) -> None:
    """Raise AssertionError with this message unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def assert_close(
    actual: np.ndarray | None, expected: np.ndarray | None, allowed: float, name: str = "result"
) -> None:
    """Require the same shape, the same NaN and infinities, and every element within ``allowed``.

    ``allowed`` is relative to the largest finite element expected.  The two may both be None.

    Raises: AssertionError naming the worst element, what was expected there and what came
    """
    if actual is None or expected is None:
        require(actual is expected, f"{name}: expected {_kind(expected)}, got {_kind(actual)}")
        return
    require(actual.shape == expected.shape, f"{name}: expected {_kind(expected)}, got {_kind(actual)}")
    actual, expected = _wide(actual), _wide(expected)
    bound = allowed * _largest(expected)
    close = np.isclose(actual, expected, rtol=allowed, atol=bound, equal_nan=True)
    if not close.all():
        with np.errstate(invalid="ignore"):
            distance = np.nan_to_num(np.abs(actual - np.asarray(expected)), nan=np.inf)
        place = np.unravel_index(np.argmax(np.where(close, -1, distance)), distance.shape)
        raise AssertionError(
            f"{name}[{', '.join(map(str, place))}]: expected {expected[place]:.9g}, "
            f"got {actual[place]:.9g}; {close.size - close.sum()} of {close.size} elements differ "
            f"by more than {bound:.3g}"
        )


def assert_equal(actual: np.ndarray | None, expected: Any, name: str = "result") -> None:
    """`assert_close` with nothing allowed; NaN equals NaN, and 0 equals -0."""
    assert_close(actual, None if expected is None else np.asarray(expected), 0, name)


def error(actual: np.ndarray | None, expected: np.ndarray | None) -> Error:
    """The largest difference of two arrays of one shape, where both are finite; (0, 0) for None."""
    if actual is None or expected is None or actual.size == 0:
        return Error(0.0, 0.0)
    both = np.isfinite(actual) & np.isfinite(expected)
    largest = _largest(expected)
    farthest = float(np.abs(actual[both] - expected[both]).max(initial=0))
    if farthest == 0:
        return Error(0.0, 0.0)
    ulp = float(np.spacing(actual.dtype.type(largest)))
    return Error(farthest / largest if largest else math.inf, farthest / ulp)


def _largest(a: np.ndarray) -> float:
    """The largest absolute value of the finite elements, 0 if there are none."""
    return float(np.abs(a[np.isfinite(a)]).max(initial=0))


def _wide(a: np.ndarray) -> np.ndarray:
    """bfloat16 as float32, which NumPy can compare and print."""
    return a.astype(np.float32) if is_bfloat16(a) else a


def _kind(a: np.ndarray | None) -> str:
    return "None" if a is None else f"an array of shape {a.shape}"
