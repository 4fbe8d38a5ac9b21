"""Output sizes and argument checks of every operation.

`csrc/host/shapes.h` has the same checks with the same words, so that every backend reports the same error:
``[op] argument: expected this, got that``.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

Pair = tuple[int, int]
Padding = Pair | tuple[int, int, int, int]
"""Padding of an image: (h, w) on both sides each, or (top, left, bottom, right)."""
Shape = tuple[int, ...]


def fail(op: str, argument: str, expected: object, got: object) -> NoReturn:
    """Raise the contract's ValueError."""
    raise ValueError(f"[{op}] {argument}: expected {expected}, got {got}")


def padding_of_axis(padding: Padding, axis: int) -> Pair:
    """The padding before and after the image along axis 0, down, or 1, across."""
    return padding[axis], padding[axis + 2] if len(padding) == 4 else padding[axis]


def conv_output_size(size: int, kernel: int, stride: int, padding: Pair, dilation: int) -> int:
    """Number of window positions along one axis of a convolution; ``padding`` is before and after it."""
    return (size + sum(padding) - dilation * (kernel - 1) - 1) // stride + 1


def pool_output_size(
    size: int, kernel: int, stride: int, padding: Pair, dilation: int, ceil_mode: bool
) -> int:
    """Number of window positions along one axis of a pool; ``padding`` is before and after it.

    In ceil mode a last window that is cut off by the border counts too, if it starts inside the input or
    its left padding.
    """
    span = size + sum(padding) - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return span // stride + 1
    out = -(-span // stride) + 1
    return out - 1 if (out - 1) * stride >= size + padding[0] else out


# ---- building blocks ---------------------------------------------------------------------------


def check_ndarray(op: str, name: str, a: Any) -> None:
    if not isinstance(a, np.ndarray):
        fail(op, name, "a numpy.ndarray", "None" if a is None else type(a).__name__)


def check_float(op: str, name: str, a: Any) -> None:
    check_ndarray(op, name, a)
    if a.dtype not in (np.float32, np.float64):
        fail(op, name, "dtype float32 or float64", a.dtype)


def check_dtype(op: str, name: str, a: Any, dtype: Any) -> None:
    if a.dtype != dtype:
        fail(op, name, f"dtype {np.dtype(dtype)}", a.dtype)


def check_like(op: str, name: str, a: Any, x: Any) -> None:
    """Raise ValueError unless a has the dtype of x, the operation's first array."""
    check_ndarray(op, name, a)
    check_dtype(op, name, a, x.dtype)


def check_shape(op: str, name: str, a: Any, shape: Sequence[int]) -> None:
    if tuple(a.shape) != tuple(shape):
        fail(op, name, f"shape {tuple(shape)}", tuple(a.shape))


def check_array(op: str, name: str, a: Any, shape: Sequence[int], x: Any) -> None:
    """Raise ValueError unless a has this shape and x's dtype."""
    check_like(op, name, a, x)
    check_shape(op, name, a, shape)


def check_in_place(op: str, name: str, a: Any) -> None:
    """Raise ValueError unless an operation can write to a."""
    expected = "an array that can be changed in place"
    if not a.flags.writeable:
        fail(op, name, expected, "a read-only one")
    if a.size > 1 and any(step == 0 and n > 1 for step, n in zip(a.strides, a.shape, strict=True)):
        fail(op, name, expected, "one whose elements share memory")


def check_image(op: str, name: str, x: Any) -> None:
    """Raise ValueError unless x is a float array (N,C,H,W), of which only N may be 0."""
    check_float(op, name, x)
    if x.ndim != 4:
        fail(op, name, "4 dimensions (N, C, H, W)", x.ndim)
    if min(x.shape[1:]) < 1:
        fail(op, name, "C, H and W of at least 1", f"shape {tuple(x.shape)}")


def check_filters(op: str, name: str, weight: Any) -> None:
    """Raise ValueError unless weight is (F,C/groups,KH,KW), and none of these is 0."""
    if weight.ndim != 4:
        fail(op, name, "4 dimensions (F, C/groups, KH, KW)", weight.ndim)
    if min(weight.shape) < 1:
        fail(op, name, "every dimension of at least 1", f"shape {tuple(weight.shape)}")


def check_matrix(op: str, name: str, x: Any, letters: str) -> None:
    check_float(op, name, x)
    if x.ndim != 2:
        fail(op, name, f"2 dimensions ({letters})", x.ndim)


def is_integer(value: Any) -> bool:
    """Whether the value is an integer, or a number that Python accepts as one, and fits 64 bits."""
    try:
        return -(2**63) <= operator.index(value) < 2**63
    except TypeError:
        return False


def check_layer_input(layer: str, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless this is the shape of one image, for a layer that takes images."""
    if len(shape) != 3:
        fail(layer, "input_shape", "(C, H, W)", shape)


def check_pair(op: str, name: str, pair: Pair, least: int) -> None:
    if not isinstance(pair, tuple | list):
        fail(op, name, f"two integers of at least {least}", type(pair).__name__)
    if len(pair) != 2 or not all(map(is_integer, pair)) or min(pair) < least:
        fail(op, name, f"two integers of at least {least}", tuple(pair))
    if max(pair) >= 2**31:  # no memory is large enough for more
        fail(op, name, "two integers below 2**31", tuple(pair))


def check_padding(op: str, name: str, padding: Padding) -> None:
    """Raise ValueError unless padding is two or four sizes."""
    expected = "two or four integers of at least 0"
    if not isinstance(padding, tuple | list):
        fail(op, name, expected, type(padding).__name__)
    if len(padding) not in (2, 4) or not all(map(is_integer, padding)) or min(padding) < 0:
        fail(op, name, expected, tuple(padding))
    if max(padding) >= 2**31:
        fail(op, name, "two or four integers below 2**31", tuple(padding))


def check_image_shape(op: str, name: str, shape: Any) -> None:
    """Raise ValueError unless shape is that of a batch of images, as in `check_image`."""
    if not isinstance(shape, tuple | list):
        fail(op, name, "(N, C, H, W)", type(shape).__name__)
    if len(shape) != 4 or not all(map(is_integer, shape)) or shape[0] < 0 or min(shape[1:]) < 1:
        fail(op, name, "(N, C, H, W)", tuple(shape))


def shown(value: Any) -> str:
    """A value in an error's one line: an array by the name of its type, all else as Python prints it."""
    kind = type(value)
    return kind.__name__ if hasattr(kind, "__array__") and hasattr(kind, "__len__") else repr(value)


def number(op: str, name: str, value: Any) -> float:
    """A number, or an array of one, as Python's own.  Raises ValueError for all else; for a bool too."""
    if not isinstance(value, bool | np.bool_ | str | bytes | bytearray):
        with contextlib.suppress(Exception):  # whatever an object's own conversion raises
            return float(value)
    fail(op, name, "a number", shown(value))


def at_least_0(op: str, name: str, value: Any) -> float:
    """A number of at least 0."""
    with contextlib.suppress(ValueError):
        if (found := number(op, name, value)) >= 0:
            return found
    fail(op, name, "a number of at least 0", shown(value))


def fraction(op: str, name: str, value: Any) -> float:
    """A number from 0 to 1."""
    found = number(op, name, value)
    if not 0.0 <= found <= 1.0:
        fail(op, name, "a number from 0 to 1", shown(value))
    return found


def below_1(op: str, name: str, value: Any) -> float:
    """A number from 0 to below 1."""
    found = number(op, name, value)
    if not 0.0 <= found < 1.0:
        fail(op, name, "a number from 0 to below 1", shown(value))
    return found


def at_least_1(op: str, name: str, value: Any) -> int:
    """An integer of at least 1."""
    if not is_integer(value) or operator.index(value) < 1:
        fail(op, name, "an integer of at least 1", shown(value))
    return operator.index(value)


def flag(op: str, name: str, value: Any) -> bool:
    """True or False, of Python's or NumPy's."""
    if not isinstance(value, bool | np.bool_):
        fail(op, name, "True or False", shown(value))
    return bool(value)


def flags(op: str, **values: Any) -> None:
    """Raise ValueError unless each of an operation's flags is True or False."""
    for name, value in values.items():
        flag(op, name, value)


# ---- one function per operation ------------------------------------------------------------------


def conv2d(
    op: str, x: Any, weight: Any, bias: Any, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Pair:
    """Check conv2d's arguments; returns (OH, OW)."""
    check_image(op, "x", x)
    check_like(op, "weight", weight, x)
    check_filters(op, "weight", weight)
    check_pair(op, "stride", stride, 1)
    check_padding(op, "padding", padding)
    check_pair(op, "dilation", dilation, 1)
    channels, filters = x.shape[1], weight.shape[0]
    if not is_integer(groups) or groups < 1 or channels % groups or filters % groups:
        fail(op, "groups", f"a divisor of C={channels} and F={filters}", repr(groups))
    if weight.shape[1] * groups != channels:
        letter = "C" if groups == 1 else "C/groups"
        fail(op, "weight", f"{letter}={channels // groups}", f"{letter}={weight.shape[1]}")
    if bias is not None:
        check_array(op, "bias", bias, (filters,), x)
    return _conv_output(op, x.shape, weight.shape[2:], stride, padding, dilation)


def _conv_output(
    op: str, shape: Shape, kernel: Sequence[int], stride: Pair, padding: Padding, dilation: Pair
) -> Pair:
    sizes = []
    for axis, letter in enumerate("HW"):
        size = shape[2 + axis]
        sides = padding_of_axis(padding, axis)
        least = dilation[axis] * (kernel[axis] - 1) + 1 - sum(sides)
        if size < least:
            fail(op, "x", f"{letter} of at least {least}", f"{letter}={size}")
        sizes.append(conv_output_size(size, kernel[axis], stride[axis], sides, dilation[axis]))
    return sizes[0], sizes[1]


def conv2d_map(op: str, x: Any, weight: Any, stride: Pair, padding: Padding, dilation: Pair) -> Shape:
    """The shape (N,F,OH,OW) of a convolution's output, for arrays of any backend."""
    for name, a in (("x", x), ("weight", weight)):
        dimensions = len(getattr(a, "shape", ()))
        if dimensions != 4:
            fail(op, name, "an array of 4 dimensions", dimensions or type(a).__name__)
    return (
        *(x.shape[0], weight.shape[0]),
        *_conv_output(op, x.shape, weight.shape[2:], stride, padding, dilation),
    )


def pool2d(
    op: str, shape: Shape, kernel_size: Pair, stride: Pair, padding: Padding, dilation: Pair,
    ceil_mode: bool,
) -> Pair:  # fmt: skip
    """Check a pool's attributes for an input of this shape; returns (OH, OW)."""
    check_pair(op, "kernel_size", kernel_size, 1)
    check_pair(op, "stride", stride, 1)
    check_padding(op, "padding", padding)
    check_pair(op, "dilation", dilation, 1)
    flag(op, "ceil_mode", ceil_mode)
    if any(2 * side > kernel_size[i % 2] for i, side in enumerate(padding)):
        fail(op, "padding", f"at most half of kernel_size {tuple(kernel_size)}", tuple(padding))
    sizes = []
    for axis, letter in enumerate("HW"):
        size, kernel, dil = shape[2 + axis], kernel_size[axis], dilation[axis]
        sides = padding_of_axis(padding, axis)
        out = pool_output_size(size, kernel, stride[axis], sides, dil, ceil_mode)
        if out < 1:
            least = dil * (kernel - 1) + 1 - sum(sides)
            fail(op, "x", f"{letter} of at least {least}", f"{letter}={size}")
        sizes.append(out)
    return sizes[0], sizes[1]


def dense(op: str, x: Any, weight: Any, bias: Any) -> None:
    check_matrix(op, "x", x, "N, in")
    check_like(op, "weight", weight, x)
    check_matrix(op, "weight", weight, "out, in")
    if weight.shape[1] != x.shape[1]:
        fail(op, "weight", f"in={x.shape[1]}", f"in={weight.shape[1]}")
    if bias is not None:
        check_array(op, "bias", bias, (weight.shape[0],), x)


def batch_norm2d(
    op: str, x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool
) -> None:
    check_image(op, "x", x)
    named = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}
    for name, a in named.items():
        if a is not None:
            check_array(op, name, a, (x.shape[1],), x)
        elif name.startswith("running") and not training:
            fail(op, name, f"shape {(x.shape[1],)} in evaluation", "None")
    if training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
        fail(op, "x", "more than 1 value per channel in training", f"shape {tuple(x.shape)}")


def softmax_cross_entropy(
    op: str, name: str, logits: Any, labels: Any, label_smoothing: float, class_weight: Any,
    ignore_index: int, reduction: str,
) -> None:  # fmt: skip
    """``name`` is the name of the (N,K) array: logits in the forward pass, probs in the backward pass."""
    check_matrix(op, name, logits, "N, K")
    n, k = logits.shape
    if k < 1:
        fail(op, name, "K of at least 1", f"shape {tuple(logits.shape)}")
    check_ndarray(op, "labels", labels)
    if labels.dtype == np.int64:
        check_shape(op, "labels", labels, (n,))
    elif labels.dtype == logits.dtype:
        check_shape(op, "labels", labels, (n, k))
    else:
        fail(op, "labels", f"dtype int64 or {logits.dtype}", labels.dtype)
    if not is_integer(ignore_index):
        fail(op, "ignore_index", "an integer", repr(ignore_index))
    if labels.ndim == 1:
        wrong = labels[((labels < 0) | (labels >= k)) & (labels != ignore_index)]
        if wrong.size:
            fail(op, "labels", f"values from 0 to {k - 1}", int(wrong[0]))
    elif ignore_index >= 0:
        fail(op, "ignore_index", "a negative integer, as labels are probabilities", ignore_index)
    fraction(op, "label_smoothing", label_smoothing)
    if class_weight is not None:
        check_array(op, "class_weight", class_weight, (k,), logits)
    if reduction not in ("mean", "sum", "none"):
        fail(op, "reduction", "'mean', 'sum' or 'none'", repr(reduction))


def fold_batch_norm2d(op: str, weight: Any, eps: float, **vectors: Any) -> None:
    """``vectors`` are (F,).  They may be None, except the running statistics."""
    check_float(op, "weight", weight)
    check_filters(op, "weight", weight)
    for name, a in vectors.items():
        if a is not None or name.startswith("running"):
            check_array(op, name, a, (weight.shape[0],), weight)
    number(op, "eps", eps)


def dropout(op: str, name: str, x: Any, keep_mask: Any, p: float) -> None:
    check_float(op, name, x)
    check_ndarray(op, "keep_mask", keep_mask)
    if keep_mask.dtype != np.bool_:
        fail(op, "keep_mask", "dtype bool", keep_mask.dtype)
    check_shape(op, "keep_mask", keep_mask, x.shape)
    fraction(op, "p", p)


def concat(op: str, xs: Sequence[Any]) -> None:
    if not xs:
        fail(op, "xs", "at least 1 array", 0)
    check_image(op, "xs[0]", xs[0])
    n, _, h, w = xs[0].shape
    for i, x in enumerate(xs[1:], 1):
        check_image(op, f"xs[{i}]", x)
        check_like(op, f"xs[{i}]", x, xs[0])
        if (x.shape[0], *x.shape[2:]) != (n, h, w):
            fail(op, f"xs[{i}]", f"N, H, W = {(n, h, w)}", (x.shape[0], *x.shape[2:]))


def optimizer(op: str, only_read: str = "", **lists: Sequence[Any]) -> None:
    """Check the lists of an optimizer step: they have the first one's length, shapes and dtype.

    All arrays are changed in place, except those of the list ``only_read``.
    """
    first = next(iter(lists.values()))
    for name, arrays in lists.items():
        if len(arrays) != len(first):
            fail(op, name, f"{len(first)} arrays", len(arrays))
    for i, like in enumerate(first):
        for name, arrays in lists.items():
            check_float(op, f"{name}[{i}]", arrays[i])
            check_dtype(op, f"{name}[{i}]", arrays[i], first[0].dtype)
            check_shape(op, f"{name}[{i}]", arrays[i], like.shape)
            if name != only_read:
                check_in_place(op, f"{name}[{i}]", arrays[i])
