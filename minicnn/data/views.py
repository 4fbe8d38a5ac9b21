"""Test-time augmentation: the views of an image whose logits are averaged."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_STILL = (0, 0)
_MOVES = {
    "none": {_STILL: 1.0},
    "flip": {_STILL: 1.0},
    "flip-shift": {_STILL: 0.5, (1, 1): 0.25, (-1, -1): 0.25},
}
"""Name -> how far the image is moved, down and to the right in pixels, and the share of each move."""

TTA = tuple(_MOVES)


def views(x: NDArray[np.uint8], tta: str) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Yield, for each view of the images, its share of the mean and the view, shaped like x (N,C,H,W).

    "none" is the image itself.  "flip" adds its mirror image.  "flip-shift" also adds both of these moved
    by a pixel, once down and right and once up and left; the new pixels are black.  The shares add up to 1.

    Raises: ValueError if ``tta`` is none of TTA
    Source: Jordan 2024, arXiv:2404.00498, section 3.5
    """
    if tta not in TTA:
        raise ValueError(f"[views] tta: expected one of {', '.join(TTA)}, got {tta}")
    flips = (1,) if tta == "none" else (1, -1)
    for move, share in _MOVES[tta].items():
        moved = _moved(x, *move)
        for step in flips:
            yield share / len(flips), moved[..., ::step]


def _moved(x: NDArray[np.uint8], down: int, right: int) -> NDArray[np.uint8]:
    """The images moved by at most one pixel along each axis."""
    if (down, right) == _STILL:
        return x
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return padded[:, :, 1 - down : 1 - down + height, 1 - right : 1 - right + width]
