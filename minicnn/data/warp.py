"""One affine warp for each image of a batch, with bilinear sampling."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_PIXELS_AT_ONCE = 15_000  # temporaries then stay in the cache, and malloc need not ask the system for them


def affine_matrices(
    angle: NDArray[Any], zoom: NDArray[Any], shift_y: NDArray[Any], shift_x: NDArray[Any],
    size: tuple[int, int],
) -> NDArray[np.float64]:  # fmt: skip
    """(N,2,3): from a pixel (x, y, 1) of the new image to its place (x, y) in the old one.

    A new image is the old one turned about its centre, enlarged from there, then moved:
    place = centre + R (pixel - centre - shift) / zoom, the inverse of those three.

    Args: angle degrees (N,), counter-clockwise · zoom (N,), above 1 enlarges · shift_y, shift_x pixels
          (N,), positive down and to the right · size (H, W)
    Torch: the grid of torchvision.transforms.functional.affine(x, -angle, (shift_x, shift_y), zoom, 0)
    """
    middle_y, middle_x = (size[0] - 1) / 2, (size[1] - 1) / 2
    radians = np.deg2rad(angle)
    cos, sin = np.cos(radians) / zoom, np.sin(radians) / zoom
    far_y, far_x = middle_y + shift_y, middle_x + shift_x
    return np.stack(
        [
            np.stack([cos, -sin, middle_x - cos * far_x + sin * far_y], axis=1),
            np.stack([sin, cos, middle_y - sin * far_x - cos * far_y], axis=1),
        ],
        axis=1,
    )


def affine_warp(x: NDArray[Any], matrices: NDArray[np.float64]) -> NDArray[np.float32]:
    """Each image sampled where its matrix says, bilinearly; around the image everything is 0.

    Args:    x (N,C,H,W) uint8 or float32 · matrices (N,2,3) of `affine_matrices`
    Returns: float32 (N,C,H,W)
    Equal:   scipy.ndimage.affine_transform(…, order=1, mode="grid-constant")
    """
    out = np.empty(x.shape, np.float32)
    images = max(1, _PIXELS_AT_ONCE // max(1, x[:1].size))
    for start in range(0, len(x), images):
        part = slice(start, start + images)
        _warp(x[part], matrices[part].astype(np.float32), out[part])
    return out


def _warp(x: NDArray[Any], matrices: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    n, c, height, width = x.shape
    # With a border of zeros, the four neighbours of any place in the image or on the border can be read.
    padded = np.zeros((n, c, height + 3, width + 3), np.float32)
    padded[:, :, 1:-2, 1:-2] = x
    columns = np.arange(width, dtype=np.float32)
    rows = np.arange(height, dtype=np.float32)[:, None]
    place_x, place_y = (
        m[:, 0, None, None] * columns + (m[:, 1, None, None] * rows + (m[:, 2, None, None] + 1))
        for m in (matrices[:, 0], matrices[:, 1])
    )
    np.clip(place_x, 0, width + 1, out=place_x)
    np.clip(place_y, 0, height + 1, out=place_y)
    left, top = np.floor(place_x), np.floor(place_y)
    place_x -= left
    place_y -= top
    right_share, lower_share = place_x[:, None], place_y[:, None]
    stride = width + 3
    planes = np.arange(n * c, dtype=np.int32).reshape(n, c, 1, 1) * (stride * (height + 3))
    at = (planes + (top.astype(np.int32) * stride + left.astype(np.int32))[:, None]).astype(np.intp)
    pixels = padded.reshape(-1)
    upper = _between(pixels, pixels[1:], at, right_share)
    lower = _between(pixels[stride:], pixels[stride + 1 :], at, right_share)
    lower -= upper
    lower *= lower_share
    np.add(upper, lower, out=out)


def _between(
    a: NDArray[np.float32], b: NDArray[np.float32], at: NDArray[np.intp], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    """a[at] + share * (b[at] - a[at])."""
    # All places are inside the arrays.  take's default mode would check that, and is slower.
    a, b = a.take(at, mode="wrap"), b.take(at, mode="wrap")
    b -= a
    b *= share
    a += b
    return a
