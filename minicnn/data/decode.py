"""Decoding the images that were found in a folder into one array."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minicnn.data.errors import DataError
from minicnn.data.images import Size, describe_image, image_size
from minicnn.data.progress import OnProgress, ignore
from minicnn.data.scan import Listed
from minicnn.data.summary import Summary, UnusableImages, bad_files, common_sizes
from minicnn.memory import check_memory


def decode(
    listed: Listed, size: Size | None, channels: int | None = None, *, summary: Summary | None = None,
    skip_bad: bool = False, progress: OnProgress = ignore,
) -> NDArray[np.uint8]:  # fmt: skip
    """The images, uint8 (N,C,H,W).  C is ``channels``; by default 1 if all are grey, else 3 for RGB.

    With ``skip_bad``, files that are no intact images are left out: `without_bad` leaves them out of
    ``listed`` too.  ``summary`` takes up what the files are like.  ``progress`` is
    called before each is decoded.

    Raises: UnusableImages naming all files that are no intact images, or telling the sizes if there are
            several and no ``size``; NotEnoughMemory if all together are too large
    """
    found = Summary() if summary is None else summary
    images: list[NDArray[np.uint8]] = []
    different, largest = "", 0
    for number, (path, _) in enumerate(listed):
        progress(number, len(listed))
        try:
            if different:  # the sizes of the rest are told too, but nothing more is decoded
                found.sizes[image_size(path)] += 1
                continue
            image = describe_image(path, channels=channels, size=size)
        except DataError as error:
            found.note_bad(path, error)
            continue
        found.take_up(path, image)
        images.append(image.pixels)
        if image.pixels.size > largest:
            largest = image.pixels.size
            _check_memory(len(listed), images, size)
        different = _different(path, images)
    _refuse(found, different, skip_bad and bool(images))
    return _stacked(images)


def without_bad(listed: Listed, summary: Summary, *, may_be_empty: bool = False) -> Listed:
    """What remains of a list when the files that cannot be used are left out.

    Raises: DataError naming a folder if nothing of its class remains, and none ``may_be_empty``
    """
    good = [(path, label) for path, label in listed if path not in summary.bad]
    if may_be_empty:
        return good
    left = {label for _, label in good}
    for path, label in listed:
        if label not in left:
            why = f"{path}: {summary.bad[path]}"
            raise DataError(f"{path.parent}: expected an image that can be used, got none; {why}")
    return good


def _check_memory(count: int, images: list[NDArray[np.uint8]], size: Size | None) -> None:
    """Refuse ``count`` images like the last one, the largest yet; those before it have their memory."""
    shape = images[-1].shape
    remedy = "--image-size N scales all to N by N pixels" if size is None else "--image-size can be smaller"
    what = f"decoding {count:,} images of {'x'.join(map(str, shape))}"
    need = count * math.prod(shape) - sum(image.size for image in images[:-1])
    check_memory(need, what, f"{remedy}, --limit-train N takes fewer")


def _different(path: Path, images: list[NDArray[np.uint8]]) -> str:
    """What to say if the last image has not the first one's size."""
    (_, expected_height, expected_width), (_, height, width) = images[0].shape, images[-1].shape
    if (height, width) == (expected_height, expected_width):
        return ""
    return (
        f"{path}: expected {expected_width}x{expected_height} pixels as images before it have, "
        f"got {width}x{height}; --image-size N scales all to one size"
    )


def _refuse(found: Summary, different: str, skip_bad: bool) -> None:
    reasons = [bad_files(found)] if found.bad and not skip_bad else []
    if different:
        reasons.append(f"{different} (there are {common_sizes(found)})")
    if reasons:
        raise UnusableImages(reasons, found)


def _stacked(images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    channels = max(len(image) for image in images)
    x = np.empty((len(images), channels, *images[0].shape[1:]), np.uint8)
    for i in reversed(range(len(images))):
        x[i] = images.pop()  # each image is freed once copied, so that memory never holds all of them twice
    return x
