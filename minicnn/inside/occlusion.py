"""Occlusion: which pixels a class needs.

Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014, section 4.2.

A square of one colour is laid over the image, at one place after the other, and each time the network is
asked again.  Where the probability of the class falls, it needed what is covered.  A pixel's value is the
mean fall over the squares that cover it.  Nothing of the network is looked at, so this checks Grad-CAM.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minicnn import shapes

IMAGES_AT_ONCE = 32
Probabilities = Callable[[np.ndarray], np.ndarray]
"""Images (N,C,H,W), normalised as in training -> probabilities (N,K)."""


def occlusion(
    probabilities: Probabilities, x: np.ndarray, label: int, *, side: int | None = None,
    stride: int | None = None,
) -> np.ndarray:  # fmt: skip
    """How far the probability of a class falls where a square covers an image.

    Args:    probabilities such as ``model.predict_proba`` · x (C,H,W), one image, normalised as in training
             label the class, 0 to K-1
             side of the square in pixels; None: a fifth of the shorter side of x
             stride pixels from one place to the next, at most ``side``; None: half of ``side``
    Returns: (H,W), from -1 to 1: below 0 the class became likelier.  The square has the mean colour of the
             training images, which is 0 after normalisation
    Raises:  ValueError if x is no image, or the square does not fit
    """
    if x.ndim != 3:
        shapes.fail("occlusion", "x", "one image (C,H,W)", x.shape)
    height, width = x.shape[1:]
    side = max(1, round(min(height, width) / 5)) if side is None else side
    stride = max(1, side // 2) if stride is None else stride
    if not 1 <= side <= min(height, width):
        shapes.fail("occlusion", "side", f"from 1 to {min(height, width)}", side)
    if not 1 <= stride <= side:
        shapes.fail("occlusion", "stride", f"from 1 to side={side}", stride)
    places = [(i, j) for i in _places(height, side, stride) for j in _places(width, side, stride)]
    before = probabilities(x[None])[0, label]
    falls, covered = np.zeros((height, width)), np.zeros((height, width))
    for start in range(0, len(places), IMAGES_AT_ONCE):
        part = places[start : start + IMAGES_AT_ONCE]
        hidden = np.repeat(x[None], len(part), axis=0)
        for image, (i, j) in zip(hidden, part, strict=True):
            image[:, i : i + side, j : j + side] = 0
        for (i, j), after in zip(part, probabilities(hidden)[:, label], strict=True):
            falls[i : i + side, j : j + side] += before - after
            covered[i : i + side, j : j + side] += 1
    return falls / covered


def _places(length: int, side: int, stride: int) -> list[int]:
    """Where squares begin along an axis: every ``stride`` pixels, and at its end."""
    return sorted({*range(0, length - side, stride), length - side})
