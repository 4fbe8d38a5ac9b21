"""Batches: from a dataset's bytes to changed, normalised images, by one row of numbers an image.

A row of the table has the fields of `minicnn.batch_row.BATCH_ROW`.  What they ask for, in this order:

1. ``flip``: mirror the image left to right.
2. ``down``, ``right``: pixel (i, j) of the new image is pixel (i + down, j + right) of the old one.
3. ``warped``: with (x, y) = affine @ (j, i, 1), pixel (i, j) is the old image at column x and row y,
   between pixels bilinearly, where x and y are first moved into ``reach``.  Outside the image all is 0.
4. ``brightness``: multiply pixels by it.
5. ``contrast``: multiply distances from the image's mean by it.
6. ``saturation``, for three channels alone: multiply distances from the pixel's grey by it.
7. ``step``: round down to a multiple of it, unless it is 1.
8. ``threshold``: v becomes 255 - v where it is at least the threshold.
9. ``cutout``, ``erase``: fill a box with the mean colour.
10. Normalise: (v / 255 - mean) / std.
11. ``share``: share * image + (1 - share) * the image that row ``partner`` of the batch has after step 10.
12. ``patch``: a box of that image takes the place of the same box here.

Pixels have values from 0 to 255 in steps 1 to 9, and are cut off there after steps 4, 5 and 6.

Every backend gives the same bits.  So steps 1 to 9 are in float32, every product and every sum is rounded
by itself, in the order written below, and the mean of step 5 is a sum of whole numbers, which has no order.
A bfloat16 batch is the float32 one, rounded at the end.

Torch:  torchvision.transforms.functional: hflip, pad and crop, affine, adjust_brightness, adjust_contrast
        (of grey images), adjust_saturation, posterize, solarize, erase, normalize; v2.MixUp and v2.CutMix
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minicnn.batch_row import BATCH_ROW, check_batch
from minicnn.ops.cast import to_bfloat16

Table = NDArray[Any]
"""Rows of dtype `BATCH_ROW`."""

_PIXELS_AT_ONCE = 15_000  # temporaries then stay in the cache, and malloc need not ask the system for them
_FRACTIONS = np.float32(65536)
"""The mean of an image is that of its pixels rounded to 1/65536."""


def unchanged(count: int) -> Table:
    """A table (count,) of rows that change nothing; the identity for every field."""
    table = np.zeros(count, BATCH_ROW)
    for name in ("brightness", "contrast", "saturation", "step", "share"):
        table[name] = 1
    table["threshold"] = 256
    return table


def make_batch(
    images: NDArray[np.uint8], rows: NDArray[np.int64], table: Table, mean: NDArray[np.float64],
    std: NDArray[np.float64], *, dtype: str = "float32",
) -> NDArray[Any]:  # fmt: skip
    """The batch (B,C,H,W) of ``dtype`` that the table (B,) makes of images (M,C,H,W); rows are numbers."""
    check_batch(images, rows, table, mean, std, dtype)
    seen = changed(np.asarray(images)[rows], table, 255 * mean.astype(np.float32))
    if dtype == "bfloat16":
        return to_bfloat16(_mixed(normalized(seen, mean, std, "float32"), table))
    return _mixed(normalized(seen, mean, std, dtype), table)


def changed(x: NDArray[np.uint8], table: Table, fill: NDArray[np.float32]) -> NDArray[Any]:
    """Steps 1 to 9: x (B,C,H,W) uint8, which may be overwritten -> uint8, or float32 from 0 to 255.

    fill (C,) is the colour of boxes.
    """
    x = _moved(_flipped(x, table["flip"] != 0), table["down"], table["right"])
    y: NDArray[Any] = x
    if table["warped"].any():
        y = _warped(x, table)
    y = _recoloured(y, table)
    for name in ("cutout", "erase"):
        inside = _inside(table[name], x.shape)
        if inside is not None:
            y = y.astype(np.float32, copy=False)
            np.copyto(y, fill[:, None, None], where=inside)
    return y


def normalized(x: NDArray[Any], mean: ArrayLike, std: ArrayLike, dtype: Any) -> NDArray[Any]:
    """Step 10: (x / 255 - mean) / std per channel, for x (N,C,H,W); mean and std (C,)."""
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    scale = (1 / (255 * std)).astype(dtype)[:, None, None]
    shift = (-mean / std).astype(dtype)[:, None, None]
    y: NDArray[Any] = np.multiply(x, scale, dtype=dtype)
    y += shift
    return y


# ---- steps 1 and 2 -----------------------------------------------------------------------------------


def _flipped(x: NDArray[np.uint8], flips: NDArray[np.bool_]) -> NDArray[np.uint8]:
    if flips.any():
        x[flips] = x[flips, :, :, ::-1]
    return x


def _moved(x: NDArray[np.uint8], down: NDArray[Any], right: NDArray[Any]) -> NDArray[np.uint8]:
    """Pad each image with zeros, then cut the old size out.  Torchvision: RandomCrop(size, padding)."""
    n, channels, height, width = x.shape
    down, right = np.clip(down, -height, height), np.clip(right, -width, width)
    tall, wide = (int(np.abs(a).max(initial=0)) for a in (down, right))
    if not tall and not wide:
        return x
    padded = np.zeros((n, channels, height + 2 * tall, width + 2 * wide), x.dtype)
    padded[:, :, tall : tall + height, wide : wide + width] = x
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), (2, 3))
    return np.asarray(windows[np.arange(n), :, tall + down, wide + right])


# ---- step 3 ------------------------------------------------------------------------------------------


def _warped(x: NDArray[np.uint8], table: Table) -> NDArray[np.float32]:
    """Equal: scipy.ndimage.affine_transform(…, order=1, mode="grid-constant") after moving into reach."""
    out = np.empty(x.shape, np.float32)
    images = max(1, _PIXELS_AT_ONCE // max(1, x[:1].size))
    for start in range(0, len(x), images):
        part = slice(start, start + images)
        _warp(x[part], table[part], out[part])
    still = table["warped"] == 0
    out[still] = x[still]
    return out


def _warp(x: NDArray[np.uint8], table: Table, out: NDArray[np.float32]) -> None:
    n, c, height, width = x.shape
    # With a border of zeros, the four neighbours of any place in the image or on the border can be read.
    padded = np.zeros((n, c, height + 3, width + 3), np.float32)
    padded[:, :, 1:-2, 1:-2] = x
    columns = np.arange(width, dtype=np.float32)
    rows = np.arange(height, dtype=np.float32)[:, None]
    matrices, reach = table["affine"], table["reach"] + np.float32(1)
    with np.errstate(over="ignore", invalid="ignore"):  # a place without a number is the first in reach
        place_x, place_y = (
            m[:, 0, None, None] * columns + (m[:, 1, None, None] * rows + (m[:, 2, None, None] + 1))
            for m in (matrices[:, 0], matrices[:, 1])
        )
    for place, low, high in ((place_y, 0, 2), (place_x, 1, 3)):
        np.fmax(place, reach[:, low, None, None], out=place)
        np.fmin(place, reach[:, high, None, None], out=place)
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


# ---- steps 4 to 8 ------------------------------------------------------------------------------------


def _recoloured(x: NDArray[Any], table: Table) -> NDArray[Any]:
    def column(name: str) -> NDArray[np.float32]:
        return np.asarray(table[name][:, None, None, None])

    brightness, contrast, saturation = (column(n) for n in ("brightness", "contrast", "saturation"))
    step, threshold = column("step"), column("threshold")
    if (brightness != 1).any():
        x = _cut_off(x * brightness)
    if (contrast != 1).any():
        x = x.astype(np.float32, copy=False)
        total = np.rint(x * _FRACTIONS).sum((1, 2, 3), dtype=np.float64)
        middle = (total / (float(_FRACTIONS) * max(1, x[:1].size))).astype(np.float32)
        x = _cut_off(x * contrast + (1 - contrast) * middle[:, None, None, None])
    if x.shape[1] == 3 and (saturation != 1).any():
        x = x.astype(np.float32, copy=False)
        x = _cut_off(x * saturation + (1 - saturation) * _grey(x))
    if (step != 1).any():
        x = np.where(step == 1, x, np.floor(x * (1 / step)) * step)
    if (threshold <= 255).any():
        x = np.where(x >= threshold, 255 - x, x)
    return x


def _cut_off(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.clip(x, 0, 255, out=x)


def _grey(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B,1,H,W).  Torchvision: rgb_to_grayscale."""
    red, green, blue = (np.float32(share) for share in (0.2989, 0.587, 0.114))
    return np.asarray(red * x[:, 0:1] + green * x[:, 1:2] + blue * x[:, 2:3])


# ---- step 9, and the last ones -------------------------------------------------------------------------


def _inside(boxes: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """(B,1,H,W): whether a pixel is in its image's box (top, left, bottom, right); None if none is."""
    top, left, bottom, right = boxes.T[:, :, None]
    if not ((bottom > top) & (right > left)).any():
        return None
    rows, columns = np.arange(shape[2]), np.arange(shape[3])
    down, across = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    return np.asarray(down[:, None, :, None] & across[:, None, None, :])


def _mixed(y: NDArray[Any], table: Table) -> NDArray[Any]:
    """Steps 11 and 12."""
    mixed = table["share"] != 1
    patch = _inside(table["patch"], y.shape)
    if not mixed.any() and patch is None:
        return y
    other = y[table["partner"]]
    if mixed.any():
        rest = 1 - table["share"][mixed].astype(y.dtype)[:, None, None, None]
        mixture = y.copy()
        mixture[mixed] = (other[mixed] - y[mixed]) * rest + y[mixed]
        y = mixture
    if patch is not None:
        np.copyto(y, other, where=patch)
    return y
