"""What is checked of operations with bfloat16 activations.

The reference is float64 arithmetic on the operands as they are multiplied, with the factors of convolution
and dense layers rounded.  A bfloat16 result may differ from it by half a unit in its last place, as it is
rounded once, and by what a float32 sum may err.  A float32 result, such as the gradient of a weight, may
differ by the float32 sum's error alone.

Central differences say nothing here: a small step of an input is rounded away, and a large one crosses
kinks.  Nor is a backward pass the exact adjoint of a forward pass that is rounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minicnn.backends.base import Backend
from minicnn.ops.cast import bfloat16
from minicnn.shapes import is_bfloat16
from minicnn.testing.tolerance import Error, assert_close, require

ACTIVATIONS = ("x", "a", "b", "residual", "y", "x0", "x1", "x2")
"""The inputs and outputs of cases that are activations."""

WITHOUT = ("fold_batch_norm2d", "softmax", "softmax_cross_entropy", "make_batch")
"""The operations that take no bfloat16."""

SMALLEST_EXPONENT = -126
FRACTION_BITS = 7


def dtype_of(name: str) -> np.dtype[Any]:
    """The dtype of this name."""
    return bfloat16() if name == "bfloat16" else np.dtype(name)


def factor_of(op: str) -> str | None:
    """The weight that the operation rounds before it multiplies, if there is one."""
    return "weight" if op.startswith(("conv2d", "dense")) else None


def unit(values: np.ndarray) -> np.ndarray:
    """The distance between neighbouring bfloat16 numbers at these values."""
    _, exponent = np.frexp(values)  # values are fractions from 1/2 to 1 of 2**exponent
    result: np.ndarray = np.ldexp(1.0, np.maximum(exponent - 1, SMALLEST_EXPONENT) - FRACTION_BITS)
    return result


def roundings(backend: Backend, op: str) -> int:
    """How often the output is rounded: twice where the sum with a residual is composed, else once."""
    composed = getattr(type(backend), f"{op}_forward") is getattr(Backend, f"{op}_forward", None)
    return 2 if op == "batch_norm2d_add_relu" and composed else 1


def assert_rounded(
    actual: np.ndarray | None, expected: np.ndarray | None, of_sums: float, name: str, times: int = 1
) -> Error:
    """Require each bfloat16 within half a unit of what it should be, plus a float32 sum's error.

    ``of_sums`` is that error relative to the largest element; ``times`` how often the value was rounded.
    Returns the largest error, in units of bfloat16 at the value.
    """
    if actual is None or expected is None:
        require(actual is expected, f"{name}: expected {expected}, got {actual}")
        return Error(0.0, 0.0)
    require(is_bfloat16(actual), f"{name}: expected dtype bfloat16, got {actual.dtype}")
    require(actual.shape == expected.shape, f"{name}: expected {expected.shape}, got {actual.shape}")
    if not actual.size:
        return Error(0.0, 0.0)
    largest = float(np.abs(expected).max())
    distance = np.abs(actual.astype(np.float64) - expected)
    between = 2 * largest  # what is rounded before the end may be larger than the result
    later = (times - 1) * 0.5 * unit(np.asarray(between))
    allowed = 0.5 * unit(expected) + of_sums * largest + later
    place = np.unravel_index(np.argmax(distance - allowed), distance.shape)
    require(
        distance[place] <= allowed[place],
        f"{name}{[int(i) for i in place]}: expected {expected[place]:.9g} within {allowed[place]:.3g}, "
        f"got {float(actual[place]):.9g}",
    )
    units = float((distance / unit(expected)).max())
    return Error(float(distance.max() / largest) if largest else 0.0, units)


def assert_result(
    actual: np.ndarray | None, expected: np.ndarray | None, of_sums: float, name: str, dtype: Any,
    times: int = 1,
) -> Error:  # fmt: skip
    """`assert_rounded` for a bfloat16 result; a float32 one is compared as ever."""
    if is_bfloat16(np.empty(0, dtype)):
        return assert_rounded(actual, expected, of_sums, name, times)
    require(actual is None or actual.dtype == dtype, f"{name}: expected dtype {dtype}, got {actual}")
    assert_close(actual, expected, of_sums, name)
    return Error(0.0, 0.0)
