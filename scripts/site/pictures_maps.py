"""Operations on maps: pooling, batch norm, dropout, joining, flattening."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from svg import CELL, Drawing

from minicnn.ops.adaptive_avg_pool2d import adaptive_avg_pool2d_backward, adaptive_avg_pool2d_forward
from minicnn.ops.avg_pool2d import avg_pool2d_backward, avg_pool2d_forward
from minicnn.ops.dropout import dropout_backward, dropout_forward
from minicnn.ops.max_pool2d import max_pool2d_backward, max_pool2d_forward

NO_PAD = {"padding": (0, 0), "ceil_mode": False}
COLOURS = "abcd"


def max_pool2d() -> str:
    """Four windows in four colours, their winners, and where each gradient goes."""
    x = np.array([[1, 5, 2, 0], [4, 3, 7, 1], [6, 6, 0, 2], [2, 1, 3, 3]], np.float64)[None, None]
    attributes = {"kernel_size": (2, 2), "stride": (2, 2), "dilation": (1, 1), **NO_PAD}
    y, argmax = max_pool2d_forward(x, **attributes)
    dy = np.array([[1, 2], [3, 4]], np.float64)[None, None]
    dx = max_pool2d_backward(dy, argmax, input_shape=x.shape, **attributes)[0, 0]
    windows = dict(zip(np.ndindex(2, 2), COLOURS, strict=True))
    winners = {
        (2 * i + int(argmax[0, 0, i, j]) // 2, 2 * j + int(argmax[0, 0, i, j]) % 2): colour
        for (i, j), colour in windows.items()
    }
    d = Drawing()
    right, _ = d.grid(0, 30, x[0, 0], "x and its winners", winners)
    d.arrow(right + 8, 30 + 2 * CELL, right + 34, 30 + 2 * CELL)
    right, _ = d.grid(right + 42, 30 + CELL, y[0, 0], "y", windows)
    d.grid(right + 28, 30 + CELL, argmax[0, 0], "argmax", windows)
    top = 30 + 4 * CELL + 44
    right, _ = d.grid(0, top, dx, "dx", winners)
    d.arrow(right + 34, top + 2 * CELL, right + 8, top + 2 * CELL)
    d.grid(right + 42, top + CELL, dy[0, 0], "dy", windows)
    for line in (0, 2, 4):  # the windows' borders
        for y0 in (30, top):
            d.line([(line * CELL, y0), (line * CELL, y0 + 4 * CELL)])
            d.line([(0, y0 + line * CELL), (4 * CELL, y0 + line * CELL)])
    return d.figure(
        "2×2 windows at stride 2. Of the two sixes, and of the two threes, the first in reading order "
        "wins. argmax numbers the cells of a window 0 to 3. Backward, each dy goes to its winner; all "
        "other dx are zero."
    )


def avg_pool2d() -> str:
    """Overlapping windows, whose shares of the gradient add up."""
    x = np.array([[4, 0, 8], [8, 4, 0], [0, 12, 4]], np.float64)[None, None]
    attributes = {"kernel_size": (2, 2), "stride": (1, 1), "count_include_pad": True, **NO_PAD}
    y = avg_pool2d_forward(x, **attributes)
    dy = np.array([[4, 8], [12, 16]], np.float64)[None, None]
    dx = avg_pool2d_backward(dy, input_shape=x.shape, **attributes)[0, 0]
    d = Drawing()
    right, low = d.grid(0, 30, x[0, 0], "x", {(i, j): "a" for i in range(2) for j in (1, 2)})
    d.arrow(right + 8, 30 + 1.5 * CELL, right + 34, 30 + 1.5 * CELL)
    d.grid(right + 42, 30 + CELL / 2, y[0, 0], "y", {(0, 1): "a"})
    top = low + 44
    right, _ = d.grid(0, top, dx, "dx", {(1, 1): "c"})
    d.arrow(right + 34, top + 1.5 * CELL, right + 8, top + 1.5 * CELL)
    d.grid(right + 42, top + CELL / 2, dy[0, 0], "dy", dict.fromkeys(np.ndindex(2, 2), "c"))
    return d.figure(
        "2×2 windows at stride 1. Above: one window and its mean. Below: the middle pixel lies in all four "
        "windows and gets a quarter of each dy: 1 + 2 + 3 + 4 = 10."
    )


def adaptive_avg_pool2d() -> str:
    """Five values averaged over three regions."""
    x = np.array([[6, 2, 4, 3, 9]], np.float64)[None, None]
    y = adaptive_avg_pool2d_forward(x, output_size=(1, 3))[0, 0]
    dy = np.array([[2, 3, 4]], np.float64)[None, None]
    dx = adaptive_avg_pool2d_backward(dy, input_shape=x.shape)[0, 0]
    cell, names = 52, ("a", "b", "c")
    d = Drawing()
    d.grid(0, 30, x[0, 0], "x, W = 5", cell=cell)
    for k in range(3):
        first, last = k * 5 // 3, -(-(k + 1) * 5 // 3)
        d.box(first * cell + 3, 30 + cell + 8 + 22 * k, (last - first) * cell - 6, 16, names[k])
        d.text(5 * cell + 12, 30 + cell + 16 + 22 * k, f"columns {first} to {last - 1}", "left small")
    top = 30 + cell + 108
    d.grid(0, top, y, "y, OW = 3", {(0, k): names[k] for k in range(3)}, cell=cell)
    top += cell + 40
    d.grid(0, top, dx, "dx for dy = 2, 3, 4", cell=cell)
    return d.figure(
        "Five columns to three. The regions have 2, 3 and 2 columns and share columns 1 and 3. Backward, "
        "each column adds up dy divided by the size of every region that holds it."
    )


def batch_norm2d() -> str:
    """Which values the statistics of one channel are computed from."""
    d = Drawing()
    side = 20
    for n in range(3):
        for c in range(3):
            x, y = c * 88, 26 + n * 84
            style = "abc"[c]
            d.grid(x, y, np.zeros((3, 3)), "", dict.fromkeys(np.ndindex(3, 3), style), lambda _: "", side)
        d.text(3 * 88 + 24, 56 + n * 84, f"image {n}", "small")
    for c in range(3):
        d.text(c * 88 + 30, 10, f"channel {c}", "small")
        d.arrow(c * 88 + 30, 3 * 84 + 10, c * 88 + 30, 3 * 84 + 34)
        d.text(c * 88 + 30, 3 * 84 + 46, f"μ{'₀₁₂'[c]}, σ²{'₀₁₂'[c]}", "small")
    return d.figure(
        "Three images of three channels. Each colour has one mean and one variance: over the batch, the "
        "rows and the columns, M = N·H·W values, never across channels."
    )


def batch_norm2d_paths() -> str:
    """The three ways in which one x acts on the loss."""
    d = Drawing()
    d.box(0, 70, 44, 34, "a", "x")
    d.box(110, 0, 64, 34, "b", "mean")
    d.box(110, 140, 64, 34, "b", "var")
    d.box(240, 70, 56, 34, "c", "x̂")
    d.box(360, 70, 44, 34, "", "y")
    d.arrow(44, 87, 240, 87)
    d.arrow(36, 70, 110, 24)
    d.arrow(36, 104, 110, 150)
    d.arrow(174, 24, 246, 70)
    d.arrow(174, 150, 246, 104)
    d.arrow(142, 34, 142, 140)
    d.arrow(296, 87, 360, 87)
    return d.figure(
        "Each x acts on the loss in three ways: by itself, through the mean and through the variance. In "
        "evaluation the statistics are constants, and only the middle way is left."
    )


def dropout() -> str:
    """A mask and its effect, forward and backward."""
    x = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float64)
    keep = np.random.default_rng(3).random(x.shape) >= 0.5
    dy = np.ones_like(x)
    kept = {at: "a" for at in np.ndindex(x.shape) if keep[at]}
    d = Drawing()
    cell = 40
    for k, (title, values) in enumerate(
        [("x", x), ("y = x · mask / (1 − p)", dropout_forward(x, keep, p=0.5)),
         ("dx for dy = 1", dropout_backward(dy, keep, p=0.5))]
    ):  # fmt: skip
        d.grid(0, 30 + k * (2 * cell + 36), values, title, kept, cell=cell)
    return d.figure(
        "p = 0.5. Coloured cells are kept and doubled, so that the expected value stays x; the gradient "
        "passes through the same cells, doubled as well."
    )


def add() -> str:
    """A sum forward, two copies backward."""
    d = Drawing()
    for k, name in enumerate(("a", "b")):
        d.box(0, k * 60, 48, 34, "ab"[k], name)
        d.arrow(48, k * 60 + 13, 128, 40 + k * 14)
        d.arrow(128, 48 + k * 14, 48, k * 60 + 25)
    d.box(128, 30, 40, 34, "", "+")
    d.arrow(168, 42, 246, 42)
    d.arrow(246, 54, 168, 54)
    d.box(246, 30, 60, 34, "c", "y")
    d.text(207, 26, "a + b", "small")
    d.text(207, 72, "dy", "small")
    d.text(96, 8, "dy", "small")
    d.text(96, 90, "dy", "small")
    return d.figure("Forward goes from left to right; backward, a and b both get the whole dy.")


def concat() -> str:
    """Three pieces side by side in each pixel."""
    d = Drawing()
    sizes = (2, 3, 1)
    at = 0
    for k, size in enumerate(sizes):
        x = at + k * 24
        d.box(x, 26, size * CELL, 28, "abc"[k], f"C = {size}")
        d.arrow(x + size * CELL / 2, 56, 24 + at + size * CELL / 2, 92)
        at += size * CELL
    x = 24
    for k, size in enumerate(sizes):
        d.box(x, 94, size * CELL, 28, "abc"[k], f"C = {size}")
        x += size * CELL
    d.text(24 + at / 2, 140, "one pixel of y: C = 6", "small")
    return d.figure(
        "In channels-last memory the channels of a pixel lie side by side, so each pixel of y is a row of "
        "the pieces' pixels. Backward cuts it at the same places."
    )


def flatten() -> str:
    """Where each value lies in memory before and after."""
    c, h, w = 2, 2, 2
    logical = np.arange(c * h * w).reshape(1, c, h, w)
    memory = logical.transpose(0, 2, 3, 1).reshape(1, -1)
    channel = [(0, k) for k in range(8)]
    d = Drawing()
    before = {at: "ab"[int(memory[at]) // 4] for at in channel}
    after = {at: "ab"[at[1] // 4] for at in channel}
    d.grid(0, 30, memory, "memory of x, channels-last: pixel after pixel", before)
    d.arrow(4 * CELL, 30 + CELL + 8, 4 * CELL, 30 + CELL + 34)
    d.grid(0, 30 + CELL + 68, logical.reshape(1, -1), "y: channel after channel", after)
    return d.figure(
        "C = 2, H = W = 2; each number is the place of a value in logical order (C, H, W). Flatten is the "
        "only layer where memory order matters: it transposes the matrix (H·W, C) of each image."
    )


PICTURES: dict[str, Callable[..., str]] = {
    f.__name__: f
    for f in (max_pool2d, avg_pool2d, adaptive_avg_pool2d, batch_norm2d, batch_norm2d_paths, dropout, add,
              concat, flatten)
}  # fmt: skip
