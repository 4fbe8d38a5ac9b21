"""How far a result may lie from the float64 oracle: one function for all operations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

SAFETY = 16
"""Room for the constants of blocked summation and of Winograd's transforms."""


def tolerance(dtype: Any, terms: int) -> float:
    """The largest error allowed, relative to the largest element of the result.

    Rounding errors of a sum of ``terms`` products are independent enough to grow with the square
    root of their number: eps * sqrt(terms), times a constant.  ``terms`` = 0 means that the result is
    exact: values are only moved, or are integers small enough that no sum of them rounds.

    In float64 this is far below 1e-10 for every case of the table.
    """
    return SAFETY * float(np.finfo(dtype).eps) * math.sqrt(terms)


def assert_close(actual: np.ndarray | None, expected: np.ndarray | None, allowed: float) -> None:
    """Same shape, NaN and infinities in the same places, and every element within ``allowed``.

    ``allowed`` is relative to the largest finite element expected.  The two may both be None.
    """
    if actual is None or expected is None:
        assert actual is None, f"expected None, got an array of shape {np.shape(actual)}"
        assert expected is None, f"expected an array of shape {np.shape(expected)}, got None"
        return
    assert actual.shape == expected.shape
    finite = np.abs(expected[np.isfinite(expected)])
    np.testing.assert_allclose(actual, expected, rtol=allowed, atol=allowed * finite.max(initial=0))
