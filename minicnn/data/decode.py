"""Decoding the images that were found in a folder into one array."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minicnn.data.errors import DataError
from minicnn.data.images import Size, read_image
from minicnn.data.progress import OnProgress, ignore
from minicnn.data.scan import Listed


def decode(listed: Listed, size: Size | None, progress: OnProgress = ignore) -> NDArray[np.uint8]:
    """The images, uint8 (N,C,H,W): one channel if all are grey, else RGB.

    ``progress`` is called before each is decoded.

    Raises: DataError naming a file that is no intact image, or whose size is not the first one's
    """
    images: list[NDArray[np.uint8]] = []
    for number, (path, _) in enumerate(listed):
        progress(number, len(listed))
        image = read_image(path, channels=None, size=size)
        if images and image.shape[1:] != images[0].shape[1:]:
            (first, _), (height, width) = listed[0], image.shape[1:]
            raise DataError(
                f"{path}: expected {images[0].shape[2]}x{images[0].shape[1]} pixels as {first} has, "
                f"got {width}x{height}; --image-size resizes all to one size"
            )
        images.append(image)
    channels = max(len(image) for image in images)
    x = np.empty((len(images), channels, *images[0].shape[1:]), np.uint8)
    for i in reversed(range(len(images))):
        x[i] = images.pop()  # each image is freed once copied, so that memory never holds all of them twice
    return x
