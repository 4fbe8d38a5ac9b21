"""The oracle that needs no torch: central differences along a random direction, in float64.

For a loss L, a point p and a direction d, (L(p + h*d) - L(p - h*d)) / 2h must be <gradient, d>.  One
direction changes every input and every parameter at once.  The point must not be near a kink of ReLU or
max-pool, where L has no one slope.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minicnn.testing.tolerance import require

STEP = 1e-6
ALLOWED = 1e-7

Point = dict[str, np.ndarray]


def assert_slope(
    loss: Callable[[Point], float], point: Point, gradients: Point, rng: np.random.Generator
) -> None:
    """Compare the slope of ``loss`` at ``point`` along a random direction with what the gradients predict.

    Args:   point, gradients: float64 arrays by name; the loss takes a point
    Raises: AssertionError with both slopes
    """
    scale = max(1.0, *(np.abs(a).max(initial=0) for a in point.values()))
    direction = {name: scale * rng.standard_normal(a.shape) for name, a in point.items()}
    after = loss({name: a + STEP * direction[name] for name, a in point.items()})
    before = loss({name: a - STEP * direction[name] for name, a in point.items()})
    slope = (after - before) / (2 * STEP)
    parts = [float(np.vdot(gradients[name], direction[name])) for name in point]
    # the parts may cancel each other, so that rounding is relative to the parts, not to their sum
    bound = ALLOWED * max(np.abs(parts).max(initial=0), 1e-3 * scale)
    require(
        abs(slope - sum(parts)) <= bound,
        f"slope along a random direction: expected {slope:.12g}, the gradients of {', '.join(point)} "
        f"give {sum(parts):.12g}; allowed is a difference of {bound:.3g}",
    )
