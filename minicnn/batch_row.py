"""A row of numbers that says what is done to one image of a batch, and the checks of such rows.

`csrc/host/make_batch.h` has the same checks with the same words.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minicnn import shapes

BATCH_ROW = np.dtype([
    ("flip", "i4"), ("down", "i4"), ("right", "i4"), ("warped", "i4"), ("affine", "f4", (2, 3)),
    ("reach", "f4", (4,)), ("brightness", "f4"), ("contrast", "f4"), ("saturation", "f4"), ("step", "f4"),
    ("threshold", "f4"), ("cutout", "i4", (4,)), ("erase", "i4", (4,)), ("patch", "i4", (4,)),
    ("partner", "i4"), ("share", "f4"),
])  # fmt: skip
"""What is done to one image of a batch (`minicnn.ops.make_batch`); ``BatchRow`` of csrc/batch_row.h.

Boxes and reach are (top, left, bottom, right): a box ends before bottom and right, a reach at them.
"""

_BATCH_NUMBERS = (
    "affine",
    "reach",
    "brightness",
    "contrast",
    "saturation",
    "step",
    "threshold",
    "share",
)

_BORDER = 32
"""16 pixels at both sides: a warp counts places in an image with a border in 32 bits, and in float32."""


def check_batch(images: Any, rows: Any, table: Any, mean: Any, std: Any, dtype: Any) -> None:
    """Raise ValueError unless these are arguments of make_batch."""
    op = "make_batch"
    shapes.check_ndarray(op, "images", images)
    shapes.check_dtype(op, "images", images, np.uint8)
    if images.ndim != 4:
        shapes.fail(op, "images", "4 dimensions (M, C, H, W)", images.ndim)
    if min(images.shape[1:]) < 1:
        shapes.fail(op, "images", "C, H and W of at least 1", f"shape {tuple(images.shape)}")
    count, channels, height, width = images.shape
    if channels * (height + _BORDER) * (width + _BORDER) >= 2**30:
        expected = "fewer than 2**30 values an image with a border of 16 pixels"
        shapes.fail(op, "images", expected, f"shape {tuple(images.shape)}")
    shapes.check_ndarray(op, "rows", rows)
    shapes.check_dtype(op, "rows", rows, np.int64)
    if rows.ndim != 1:
        shapes.fail(op, "rows", "1 dimension (B,)", rows.ndim)
    for name, a, kind, shape in (
        ("table", table, BATCH_ROW, rows.shape),
        ("mean", mean, np.float64, (channels,)),
        ("std", std, np.float64, (channels,)),
    ):
        shapes.check_ndarray(op, name, a)
        if a.dtype != kind:
            shapes.fail(op, name, f"dtype {'BATCH_ROW' if kind is BATCH_ROW else 'float64'}", a.dtype.kind)
        shapes.check_shape(op, name, a, shape)
    if dtype not in ("float32", "float64", "bfloat16"):
        shapes.fail(op, "dtype", "'float32', 'float64' or 'bfloat16'", repr(dtype))
    wrong = rows[(rows < 0) | (rows >= count)]
    if len(wrong):
        shapes.fail(op, "rows", f"values from 0 to {count - 1}", wrong[0])
    _check_batch_rows(op, table, height, width)


def _check_batch_rows(op: str, table: Any, height: int, width: int) -> None:
    finite = np.ones(len(table), bool)
    for name in _BATCH_NUMBERS:
        finite &= np.isfinite(table[name]).all(axis=tuple(range(1, table[name].ndim)))
    top, left, bottom, right = table["reach"].T
    reaches = (top >= -1) & (left >= -1) & (bottom <= height) & (right <= width)
    reaches &= (top <= bottom) & (left <= right)
    partner = table["partner"]
    # In the order of the rows, and then in this order, the first that is wrong is told.
    rules = (
        (finite, "finite numbers", "another"),
        ((table["warped"] == 0) | reaches, f"a reach within -1 and {(height, width)}", "another"),
        (table["step"] >= 1, "a step of at least 1", "a smaller one"),
        ((partner >= 0) & (partner < len(table)), f"a partner from 0 to {len(table) - 1}", "another"),
    )
    sound = np.logical_and.reduce([holds for holds, _, _ in rules])
    if not sound.all():
        row = int(np.argmin(sound))
        expected, got = next((e, g) for holds, e, g in rules if not holds[row])
        shapes.fail(op, f"table[{row}]", expected, got)
