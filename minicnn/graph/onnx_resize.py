"""Resizing inside an ONNX model, as `minicnn.data.resize.resized` does it, for images of any size.

ONNX has an operation for it, but its engines do not agree on what antialiasing is.  Bilinear resizing is
linear in each axis, so it is two matrix products here, with matrices that are made of the image's size:

    row i of the output = sum over rows j of the image of  w[i,j] * image[j] / (sum over j of w[i,j])
    w[i,j] = max(0, 1 - |j + 1/2 - center[i]| / max(scale, 1)),    center[i] = start + (i + 1/2) * scale

``scale`` is how many rows of the image one of the output stands for, and ``start`` is where the part of the
image begins that is taken.  Both products are rounded to whole numbers, as Pillow rounds them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minicnn.data.resize import CROP, PAD
from minicnn.graph.onnx_writer import Writer


class _Formula:
    """Small numbers of the graph, by short calls."""

    def __init__(self, writer: Writer, prefix: str) -> None:
        self.writer, self.prefix = writer, prefix

    def __call__(self, op: str, *inputs: str | float, **attributes: Any) -> str:
        """A node of this operation; numbers among its inputs become constants."""
        given = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        return self.writer.node(op, given, f"{self.prefix}.{op.lower()}", **attributes)

    def constant(self, values: object, dtype: type = np.float32) -> str:
        return self.writer.constant(f"{self.prefix}.constant", values, dtype)


def add_resize(writer: Writer, x: str, size: tuple[int, ...], way: str) -> str:
    """Add the nodes that bring x, float32 (N,C,H,W) of whole numbers, to ``size``; the result's name."""
    formula = _Formula(writer, "resize")
    lengths = [
        formula("Cast", formula("Shape", x, start=axis, end=axis + 1), to=1) for axis in (2, 3)
    ]  # fmt: skip
    scales = [formula("Div", length, side) for length, side in zip(lengths, size, strict=True)]
    inners = ["", ""]
    if way == CROP:
        scales = [formula("Min", *scales)] * 2
    elif way == PAD:
        inners = [_inner(formula, length, lengths, size) for length in lengths]
        scales = [formula("Div", length, inner) for length, inner in zip(lengths, inners, strict=True)]
    down, across = (
        _matrix(formula, length, side, scale, way, inner)
        for length, side, scale, inner in zip(lengths, size, scales, inners, strict=True)
    )
    narrow = _rounded(formula, formula("MatMul", x, formula("Transpose", across, perm=[1, 0])))
    return _rounded(formula, formula("MatMul", down, narrow))


def _inner(formula: _Formula, length: str, lengths: list[str], size: tuple[int, ...]) -> str:
    """How many rows of a padded output are the image's own, of an axis of this length.

    One division, of whole numbers: so a half is a half here and in `minicnn.data.resize`.
    """
    fitting = [
        formula("Div", formula("Mul", length, float(side)), other)
        for side, other in zip(size, lengths, strict=True)
    ]
    return formula("Max", formula("Round", formula("Min", *fitting)), 1.0)


def _matrix(formula: _Formula, length: str, side: int, scale: str, way: str, inner: str) -> str:
    """The matrix (side, length) that brings an axis of this length to ``side``, or to ``inner`` of it."""
    centers = formula.constant(np.arange(side)[:, None] + 0.5)
    start: str | float = 0.0
    if way == CROP:
        start = formula("Div", formula("Sub", length, formula("Mul", scale, float(side))), 2.0)
    inside = ""
    if inner:
        before = formula("Floor", formula("Div", formula("Sub", float(side), inner), 2.0))
        centers = formula("Sub", centers, before)
        inside = formula("And", formula("Greater", centers, 0.0), formula("Less", centers, inner))
    center = formula("Add", formula("Mul", centers, scale), start)
    columns = formula(
        "Range", formula.constant(0), formula("Squeeze", length, formula.constant([0], np.int64)),
        formula.constant(1),
    )  # fmt: skip
    distance = formula("Abs", formula("Sub", formula("Add", columns, 0.5), center))
    weights = formula("Relu", formula("Sub", 1.0, formula("Div", distance, formula("Max", scale, 1.0))))
    sums = formula("ReduceSum", weights, formula.constant([1], np.int64), keepdims=1)
    if not inside:
        return formula("Div", weights, sums)
    shares = formula("Div", weights, formula("Max", sums, 1e-6))
    return formula("Mul", shares, formula("Cast", inside, to=1))


def _rounded(formula: _Formula, x: str) -> str:
    return formula("Floor", formula("Add", x, 0.5))
