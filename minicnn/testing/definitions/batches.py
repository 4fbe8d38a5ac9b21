"""Batches: what becomes of each image, pixel by pixel.  The steps are those of `minicnn.ops.make_batch`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray
Row = Any
"""One row of a table of dtype `BATCH_ROW`."""


def make_batch(
    images: Array, rows: Array, table: Array, mean: Array, std: Array, *, dtype: str = "float32"
) -> Array:
    """Change each image as its row says and normalise it; then mix it with its partner."""
    single = np.zeros((len(rows), *images.shape[1:]), dtype)
    for n, row in enumerate(table):
        x = recoloured(warped(moved(images[rows[n]], row), row), row)
        for c, i, j in np.ndindex(x.shape):
            # Step 9: fill the boxes with the mean colour.
            if in_box(i, j, row["cutout"]) or in_box(i, j, row["erase"]):
                x[c, i, j] = 255 * mean[c]
            # Step 10: normalise.
            single[n, c, i, j] = (x[c, i, j] / 255 - mean[c]) / std[c]
    y = np.zeros_like(single)
    for n, c, i, j in np.ndindex(y.shape):
        own, other = single[n, c, i, j], single[table[n]["partner"], c, i, j]
        # Step 11: mix with another image of the batch.
        y[n, c, i, j] = table[n]["share"] * own + (1 - table[n]["share"]) * other
        # Step 12: put a box of the other image here.
        if in_box(i, j, table[n]["patch"]):
            y[n, c, i, j] = other
    return y


def moved(image: Array, row: Row) -> Array:
    """Steps 1 and 2: mirrored and shifted."""
    y = np.zeros(image.shape)
    for c, i, j in np.ndindex(y.shape):
        # Step 2: look where the pixel comes from.
        top, left = i + row["down"], j + row["right"]
        # Step 1: in a mirrored image, count columns from the right.
        y[c, i, j] = pixel(image, c, top, image.shape[2] - 1 - left if row["flip"] else left)
    return y


def warped(image: Array, row: Row) -> Array:
    """Step 3: each pixel is the image at another place, between four pixels bilinearly."""
    if not row["warped"]:
        return image
    y = np.zeros_like(image)
    first, last = row["reach"][:2], row["reach"][2:]  # (row, column) each
    for c, i, j in np.ndindex(y.shape):
        across, down = row["affine"].astype(float) @ (j, i, 1)
        down, across = min(max(down, first[0]), last[0]), min(max(across, first[1]), last[1])
        top, left = math.floor(down), math.floor(across)
        for u, v in np.ndindex(2, 2):
            share = (1 - abs(down - top - u)) * (1 - abs(across - left - v))
            y[c, i, j] += share * pixel(image, c, top + u, left + v)
    return y


def recoloured(x: Array, row: Row) -> Array:
    """Steps 4 to 8, on values from 0 to 255."""
    # Step 4: brightness.
    x = np.clip(row["brightness"] * x, 0, 255)
    # Step 5: contrast, the distance from the mean.
    x = np.clip(row["contrast"] * x + (1 - row["contrast"]) * x.mean(), 0, 255)
    # Step 6: saturation, the distance from grey.
    if len(x) == 3:
        grey = 0.2989 * x[0] + 0.587 * x[1] + 0.114 * x[2]
        x = np.clip(row["saturation"] * x + (1 - row["saturation"]) * grey, 0, 255)
    for at in np.ndindex(x.shape):
        # Step 7: posterize, where a step is asked for.
        if row["step"] != 1:
            x[at] = x[at] // row["step"] * row["step"]
        # Step 8: solarize.
        if x[at] >= row["threshold"]:
            x[at] = 255 - x[at]
    return x


def pixel(image: Array, c: int, i: int, j: int) -> float:
    """A pixel of the image; outside it all is 0."""
    _, height, width = image.shape
    return float(image[c, i, j]) if 0 <= i < height and 0 <= j < width else 0.0


def in_box(i: int, j: int, box: Array) -> bool:
    """Whether pixel (i, j) is in a box (top, left, bottom, right)."""
    top, left, bottom, right = box
    return bool(top <= i < bottom and left <= j < right)
