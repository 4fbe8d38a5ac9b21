"""The cast between float32 and bfloat16, and how NumPy computes with bfloat16: widen, compute, round once.

A bfloat16 is the upper half of a float32: the same sign and 8 bits of exponent, but 7 bits of fraction
instead of 23.  Widening one to float32 is exact.  Rounding goes to the nearest bfloat16, and to the one
with an even last bit where two are equally near.

With bfloat16 activations an operation works through `computed_in_float32`: what it reads becomes float32,
it computes as ever, and its first result is rounded.  Other results, such as gradients of weights and batch
norm's statistics, stay float32.  ReLU, concat and flatten only move values, and need none of it.

Torch: torch.bfloat16
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from inspect import signature
from typing import Any

import numpy as np

from minicnn import shapes

ACTIVATIONS = ("x", "dy", "a", "b")
"""The arguments of operations that are activations.  Other arrays are weights, masks or indices."""


@cache
def bfloat16() -> np.dtype[Any]:
    """NumPy's dtype, which the package ml_dtypes brings; it is imported when it is needed first."""
    import ml_dtypes

    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


def cast_forward(x: np.ndarray, *, dtype: str) -> np.ndarray:
    """x of any shape in another dtype, "float32" or "bfloat16"; x itself where it has it."""
    return _cast("cast", "x", x, "dtype", dtype)


def cast_backward(dy: np.ndarray, *, input_dtype: str) -> np.ndarray:
    """dx in the dtype of the forward's x: the gradient is cast the other way."""
    return _cast("cast_backward", "dy", dy, "input_dtype", input_dtype)


def _cast(op: str, name: str, x: np.ndarray, argument: str, dtype: str) -> np.ndarray:
    shapes.check_ndarray(op, name, x)
    if x.dtype != np.float32 and not shapes.is_bfloat16(x):
        shapes.fail(op, name, "dtype float32 or bfloat16", x.dtype)
    if dtype not in ("float32", "bfloat16"):
        shapes.fail(op, argument, "'float32' or 'bfloat16'", repr(dtype))
    return to_bfloat16(x) if dtype == "bfloat16" else x.astype(np.float32, copy=False)


def to_bfloat16(a: np.ndarray) -> np.ndarray:
    """The nearest bfloat16 values: infinity beyond the largest one, and NaN for NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        return a.astype(bfloat16(), copy=False)


def rounded(a: np.ndarray) -> np.ndarray:
    """The nearest bfloat16 values, as float32."""
    return to_bfloat16(a).astype(np.float32)


def computed_in_float32(operation: Callable[..., Any], *, of: str, factor: str = "") -> Callable[..., Any]:
    """The operation for bfloat16 activations, too.

    Args: of the activation that decides: with a bfloat16 one, all activations must be bfloat16 ·
          factor the weight that is rounded to bfloat16 before it is multiplied, if there is one
    """
    names = list(signature(operation).parameters)
    op = operation.__name__.removesuffix("_forward")

    @wraps(operation)
    def either(*args: Any, **options: Any) -> Any:
        arguments = dict(zip(names, args, strict=False)) | options
        deciding = arguments.get(of)
        if not shapes.is_bfloat16(deciding):
            return operation(*args, **options)
        for name in ACTIVATIONS:
            if name in arguments:
                shapes.check_like(op, name, arguments[name], deciding)
                arguments[name] = arguments[name].astype(np.float32)
        weight = arguments.get(factor)
        if isinstance(weight, np.ndarray) and weight.dtype == np.float32:
            arguments[factor] = rounded(weight)
        results = operation(**arguments)
        if not isinstance(results, tuple):
            return to_bfloat16(results)
        first, *others = results
        return None if first is None else to_bfloat16(first), *others

    return either
