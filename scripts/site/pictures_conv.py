"""Convolution: the window, its gradients, the phases of a stride; and what fusion saves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from svg import CELL, Drawing, number

from minicnn.ops.conv2d import conv2d_backward, conv2d_forward

ONE = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
X = np.array([[1, 0, 2, 1], [3, 1, 0, 2], [0, 2, 1, 1], [1, 1, 3, 0]], np.float64)
W = np.array([[1, 0, -1], [2, 1, 0], [0, 1, 1]], np.float64)
DY = np.array([[1, 2], [3, -1]], np.float64)


def _images(*matrices: np.ndarray) -> list[np.ndarray]:
    return [m[None, None] for m in matrices]


def window() -> str:
    """One window of x, the filter, and the output element that they make."""
    x, w = _images(X, W)
    y = conv2d_forward(x, w, None, **ONE)[0, 0]
    i, j = 1, 0
    inside = {(i + u, j + v): "a" for u in range(3) for v in range(3)}
    d = Drawing()
    right, _ = d.grid(0, 30, X, "x", inside)
    d.text(right + 15, 30 + 2 * CELL, "⋆")
    right, _ = d.grid(right + 30, 30 + CELL / 2, W, "w", dict.fromkeys(np.ndindex(3, 3), "b"))
    d.text(right + 15, 30 + 2 * CELL, "=")
    d.grid(right + 30, 30 + CELL, y, "y", {(i, j): "c"})
    patch = X[i : i + 3, j : j + 3]
    terms = [f"{number(a)}·{number(b)}" for a, b in zip(patch.flat, W.flat, strict=True) if b]
    d.text(0, 30 + 4 * CELL + 20, f"y[{i},{j}] = {' + '.join(terms)} = {number(y[i, j])}", "left small")
    return d.figure(
        "A 3×3 filter over a 4×4 image, stride 1, no padding. Each output is the sum of the products of "
        "the filter and one window; the line below leaves out where the filter is 0."
    )


def gradient() -> str:
    """The gradient to x in two ways: scattered from each dy, and gathered by each dx."""
    x, w, dy = _images(X, W, DY)
    dx = conv2d_backward(dy, x, w, **ONE)[0][0, 0]
    d = Drawing()
    top = 30
    right, _ = d.grid(0, top + CELL, DY, "dy", {(0, 1): "c"})
    d.text(right + 15, top + 2 * CELL, "·")
    right, _ = d.grid(right + 30, top + CELL / 2, W, "w", dict.fromkeys(np.ndindex(3, 3), "b"))
    d.text(right + 15, top + 2 * CELL, "→")
    added = np.zeros((4, 4))
    added[0:3, 1:4] = DY[0, 1] * W
    reached = {(u, 1 + v): "a" for u in range(3) for v in range(3)}
    d.grid(right + 30, top, added, "added to dx", reached)
    d.text(0, top, "scatter", "left")

    top += 4 * CELL + 55
    p, q = 1, 2
    taps = {(p - i, q - j): "b" for i in range(2) for j in range(2) if 0 <= p - i < 3 and 0 <= q - j < 3}
    right, _ = d.grid(0, top + CELL, DY, "dy", dict.fromkeys(np.ndindex(2, 2), "c"))
    right, _ = d.grid(right + 30, top + CELL / 2, W, "w", taps)
    d.text(right + 15, top + 2 * CELL, "→")
    d.grid(right + 30, top, dx, "dx", {(p, q): "a"})
    d.text(0, top, "gather", "left")
    terms = [
        f"{number(DY[i, j])}·{number(W[p - i, q - j])}"
        for i in range(2) for j in range(2) if 0 <= p - i < 3 and 0 <= q - j < 3
    ]  # fmt: skip
    line = f"dx[{p},{q}] = {' + '.join(terms)} = {number(dx[p, q])}"
    d.text(0, top + 4 * CELL + 20, line, "left small")
    return d.figure(
        "Above, scatter: one dy adds its multiple of the filter to the window that it was computed from; "
        "windows overlap, so two threads could write to the same place. Below, gather: one dx adds up "
        "every dy whose window contained it, each times the weight used there. The sums are the same."
    )


def phases() -> str:
    """How many taps reach each pixel at stride 2."""
    ones = np.ones((1, 1, 3, 3))
    attributes = {"stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    x = np.zeros((1, 1, 12, 12))
    y = conv2d_forward(x, ones, None, **attributes)
    reach = conv2d_backward(np.ones_like(y), x, ones, **attributes)[0][0, 0]
    part = reach[2:8, 2:8]  # far enough from the border
    kinds = {(i, j): "abcd"[2 * (i % 2) + j % 2] for i, j in np.ndindex(part.shape)}
    d = Drawing()
    right, _ = d.grid(0, 30, part, "taps that reach each pixel of x", kinds)
    for k, (place, taps) in enumerate(
        [("even, even", (0, 0)), ("even, odd", (0, 1)), ("odd, even", (1, 0)), ("odd, odd", (1, 1))]
    ):
        d.box(right + 24, 34 + k * 50, 20, 20, "abcd"[k])
        d.text(right + 52, 44 + k * 50, f"{place}: {number(part[taps])}", "left small")
    return d.figure(
        "A 3×3 filter at stride 2, padding 1: the inner part of x. Pixels fall into four phases by their "
        "row and column modulo the stride. The same taps reach all pixels of a phase, so each phase is an "
        "ordinary correlation with a part of the filter, and nothing is multiplied by inserted zeros."
    )


def fusion(*steps: str) -> str:
    """Which maps are written to memory when operations run one after another, and when they are fused."""
    d = Drawing()
    wide, high, memory = 128, 30, 104
    d.text(0, 8, "one after another", "left")
    for k, step in enumerate(steps):
        x = k * (wide + 22)
        d.box(x, 26, wide, high, "a", step)
        d.box(x, memory, wide, 24, "pad", "map" if k < len(steps) - 1 else "y")
        d.arrow(x + wide / 2 - 8, 26 + high, x + wide / 2 - 8, memory)
        if k:
            d.arrow(x - 22 - 24, memory, x + 20, 26 + high)
    top = memory + 62
    total = len(steps) * wide + (len(steps) - 1) * 22
    d.text(0, top - 18, "fused", "left")
    d.box(0, top, total, high, "c", " → ".join(steps))
    d.box(0, top + 66, total, 24, "pad", "y")
    d.arrow(total / 2, top + high, total / 2, top + 66)
    between = len(steps) - 1
    maps = "map is" if between == 1 else "maps are"
    return d.figure(
        f"Dashed: memory. One after another, {between} {maps} written and read again between the "
        f"operations; fused, the values stay in registers or cache from one to the next."
    )


PICTURES: dict[str, Callable[..., str]] = {
    "conv2d_window": window, "conv2d_gradient": gradient, "conv2d_phases": phases, "fusion": fusion,
}  # fmt: skip
