"""Bringing images to one size: stretched, cropped, or padded."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minicnn.data.progress import OnProgress, ignore
from minicnn.memory import check_memory

Size = int | tuple[int, int]
"""A square's side, or (H, W)."""

STRETCH, CROP, PAD = RESIZE = ("stretch", "crop", "pad")
"""How an image of other proportions gets a size.

stretch: all of it, with other proportions
crop:    the largest part of these proportions, from its middle
pad:     all of it in its own proportions, in the middle of black
"""


def height_width(size: Size) -> tuple[int, int]:
    """(H, W) of a Size.  Raises ValueError unless both are at least 1."""
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"image size: expected at least 1, got {size}")
    return height, width


def resized(image: Image.Image, size: Size, way: str = STRETCH) -> Image.Image:
    """The image at this size (bilinear, antialiased).

    Raises: ValueError if ``way`` is none of RESIZE, or the size is below 1
    """
    if way not in RESIZE:
        raise ValueError(f"resize: expected one of {', '.join(RESIZE)}, got {way}")
    height, width = height_width(size)
    if way == CROP:
        return image.resize((width, height), Image.Resampling.BILINEAR, box=_middle(image, height, width))
    if way == STRETCH:
        return image.resize((width, height), Image.Resampling.BILINEAR)
    inner = (  # each by one division, so that a half is a half
        max(1, round(min(image.width * height / image.height, width))),
        max(1, round(min(image.height * width / image.width, height))),
    )
    framed = Image.new(image.mode, (width, height))
    scaled = image.resize(inner, Image.Resampling.BILINEAR)
    framed.paste(scaled, ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return framed


def resize_images(
    x: NDArray[np.uint8], size: Size, progress: OnProgress = ignore, way: str = STRETCH
) -> NDArray[np.uint8]:
    """Images (N,C,H,W) at ``size``, exactly as `images.read_image` does it.

    Raises: NotEnoughMemory if all together are too large
    """
    height, width = height_width(size)
    if x.shape[2:] == (height, width):
        return x
    shape = (*x.shape[:2], height, width)
    what = f"scaling {len(x):,} images to {height}x{width} pixels"
    check_memory(math.prod(shape), what, "--image-size can be smaller, --limit-train N takes fewer")
    out = np.empty(shape, np.uint8)
    for n in range(len(x)):
        progress(n, len(x))
        for c in range(x.shape[1]):
            out[n, c] = resized(Image.fromarray(x[n, c]), size, way)
    return out


def _middle(image: Image.Image, height: int, width: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the largest part with the proportions of (height, width)."""
    scale = max(height / image.height, width / image.width)
    across, down = min(width / scale, image.width), min(height / scale, image.height)
    left, top = (image.width - across) / 2, (image.height - down) / 2
    return left, top, min(left + across, image.width), min(top + down, image.height)
