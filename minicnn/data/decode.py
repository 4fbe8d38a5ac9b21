"""Decoding the images that were found in a folder into one array."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minicnn.data.errors import DataError
from minicnn.data.images import Size, read_image
from minicnn.data.scan import Listed


def decode(listed: Listed, size: Size | None, channels: int | None = None) -> NDArray[np.uint8]:
    """The images, uint8 (N,C,H,W).  C is ``channels``; by default 1 if all are grey, else 3 for RGB.

    Raises: DataError naming a file that is no intact image, or whose size is not the first one's
    """
    images: list[NDArray[np.uint8]] = []
    for path, _ in listed:
        image = read_image(path, channels=channels, size=size)
        if images and image.shape[1:] != images[0].shape[1:]:
            (first, _), (height, width) = listed[0], image.shape[1:]
            raise DataError(
                f"{path}: expected {images[0].shape[2]}x{images[0].shape[1]} pixels as {first} has, "
                f"got {width}x{height}; --image-size resizes all to one size"
            )
        images.append(image)
    most = max(len(image) for image in images)
    x = np.empty((len(images), most, *images[0].shape[1:]), np.uint8)
    for i in reversed(range(len(images))):
        x[i] = images.pop()  # each image is freed once copied, so that memory never holds all of them twice
    return x
