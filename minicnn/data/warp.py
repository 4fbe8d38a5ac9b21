"""Affine maps from the pixels of a new image to their places in the old one, one for each image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrices = NDArray[np.float64]
"""(N,2,3): from a pixel (x, y, 1) of the new image to its place (x, y) in the old one."""


def affine_matrices(
    angle: NDArray[Any], zoom: NDArray[Any], shift_y: NDArray[Any], shift_x: NDArray[Any],
    size: tuple[int, int],
) -> Matrices:  # fmt: skip
    """A new image is the old one turned about its centre, enlarged from there, then moved.

    place = centre + R (pixel - centre - shift) / zoom, the inverse of those three.

    Args: angle degrees (N,), counter-clockwise · zoom (N,), above 1 enlarges · shift_y, shift_x pixels
          (N,), positive down and to the right · size (H, W)
    Torch: the grid of torchvision.transforms.functional.affine(x, -angle, (shift_x, shift_y), zoom, 0)
    """
    middle_y, middle_x = (size[0] - 1) / 2, (size[1] - 1) / 2
    radians = np.deg2rad(angle)
    cos, sin = np.cos(radians) / zoom, np.sin(radians) / zoom
    far_y, far_x = middle_y + shift_y, middle_x + shift_x
    return _matrices(
        (cos, -sin, middle_x - cos * far_x + sin * far_y), (sin, cos, middle_y - sin * far_x - cos * far_y)
    )


def shear_matrices(
    along_x: NDArray[Any], along_y: NDArray[Any], shift_y: NDArray[Any], shift_x: NDArray[Any]
) -> Matrices:
    """A new image is the old one moved by the shift, and sheared from the corner of its first pixel.

    place = (x + along_x * (y + 1/2) - shift_x, y + along_y * (x + 1/2) - shift_y)
    """
    one = np.ones_like(along_x)
    return _matrices((one, along_x, along_x / 2 - shift_x), (along_y, one, along_y / 2 - shift_y))


def box_matrices(boxes: NDArray[Any], size: tuple[int, int]) -> Matrices:
    """A new image is a box (top, left, height, width) of the old one, enlarged to the size (H, W).

    Torch: F.interpolate(mode="bilinear", align_corners=False), where places beyond the box's outermost
           pixels are moved to these
    """
    top, left, tall, wide = np.asarray(boxes, np.float64).T
    down, across = tall / size[0], wide / size[1]
    zero = np.zeros_like(down)
    return _matrices((across, zero, left + across / 2 - 0.5), (zero, down, top + down / 2 - 0.5))


def one_after_another(first: Matrices, second: Matrices) -> Matrices:
    """The map of an image that is changed as the first map says, and then as the second does."""
    product = first[:, :, :2] @ second
    product[:, :, 2] += first[:, :, 2]
    return product


def _matrices(x: tuple[NDArray[Any], ...], y: tuple[NDArray[Any], ...]) -> Matrices:
    return np.stack([np.stack(x, axis=1), np.stack(y, axis=1)], axis=1)
