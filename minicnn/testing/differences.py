"""The oracle that needs no torch: central differences along random directions, in float64.

For a loss L and a direction d, (L(p + h*d) - L(p - h*d)) / 2h must be <gradient, d>.  One direction
touches every input and every parameter at once.  Inputs lie away from kinks.
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
    """Compare the slope of ``loss`` at ``point`` along a random direction with the gradients' word.

    Args:   point, gradients: float64 arrays by name; the loss takes a point
    Raises: AssertionError with both slopes
    """
    scale = max(1.0, *(np.abs(a).max(initial=0) for a in point.values()))
    direction = {name: scale * rng.standard_normal(a.shape) for name, a in point.items()}
    ahead = loss({name: a + STEP * direction[name] for name, a in point.items()})
    behind = loss({name: a - STEP * direction[name] for name, a in point.items()})
    slope = (ahead - behind) / (2 * STEP)
    parts = [float(np.vdot(gradients[name], direction[name])) for name in point]
    # the parts may cancel; they are what rounding is relative to
    bound = ALLOWED * max(np.abs(parts).max(initial=0), 1e-3 * scale)
    require(
        abs(slope - sum(parts)) <= bound,
        f"slope along a random direction: expected {slope:.12g}, the gradients of {', '.join(point)} "
        f"give {sum(parts):.12g}; allowed is a difference of {bound:.3g}",
    )
