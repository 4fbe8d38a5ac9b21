"""Images as uint8 arrays: how a file is decoded, for training and for prediction alike."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from minicnn.data.contents import Contents, Files
from minicnn.data.depth import depth_of, to_8_bits
from minicnn.data.errors import DataError
from minicnn.data.formats import pillows_format
from minicnn.data.jpeg_scans import check_scans
from minicnn.data.mapped import mapping_of
from minicnn.data.png_texts import without_texts
from minicnn.data.resize import STRETCH, Size, height_width, resized

MOST_PIXELS = 100_000_000
"""An image may have as many pixels, whatever its format: a larger one is refused before it is decoded."""

SIXTEEN_BITS = "I;16"
"""The mode of images with 16 bits of grey."""

_ORIENTATION = 0x0112  # EXIF's tag
_GREY_MODES = ("1", "L", "LA")
_FILES = Files()
_BYTES_OF_A_PIECE = 32 << 20


class Described(NamedTuple):
    """An image, uint8 (C,H,W), and how its file has it: upright (H,W), and Pillow's mode."""

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    mode: str


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images: x uint8 (N,C,H,W), y int64 (N,).  ``len`` is N.

    ``paths`` are what they were read from, or None if each image is no file of its own.  With ``rows``
    int64 (N,), the images are these rows of x, which has others too: a file of a whole dataset that is
    mapped into memory, say.  `take`, `pieces` and `locate` hold for both.

    Raises: ValueError if x, y or rows has another shape or dtype, or if there are more or fewer paths
    """

    x: NDArray[np.uint8]
    y: NDArray[np.int64]
    paths: tuple[Path, ...] | None = None
    rows: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.x.ndim != 4 or self.x.dtype != np.uint8:
            raise ValueError(f"x: expected uint8 (N,C,H,W), got {self.x.dtype} {self.x.shape}")
        count = len(self.x) if self.rows is None else len(self.rows)
        if self.rows is not None and (self.rows.ndim != 1 or self.rows.dtype != np.int64):
            raise ValueError(f"rows: expected int64 (N,), got {self.rows.dtype} {self.rows.shape}")
        if self.y.shape != (count,) or self.y.dtype != np.int64:
            raise ValueError(f"y: expected int64 ({count},), got {self.y.dtype} {self.y.shape}")
        if self.paths is not None and len(self.paths) != count:
            raise ValueError(f"paths: expected {count}, one an image, got {len(self.paths)}")

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C,H,W) of each image."""
        channels, height, width = self.x.shape[1:]
        return channels, height, width

    def locate(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of x that have the images of these numbers, whose pixels are about to be read.

        If x is a mapped file, the system begins to read these rows, and takes back the memory of rows that
        were located long before, so that the process stays small.
        """
        rows = indices if self.rows is None else self.rows[indices]
        mapping = mapping_of(self.x)
        if mapping is not None:
            mapping.announce(self.x, rows)
        return rows

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """A copy of the images (B,C,H,W) of these numbers."""
        return self.x[self.locate(indices)]

    def pieces(self, count: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """All images in order, (B,C,H,W), so many at a time; by default as many as take about 32 MB."""
        step = count or max(1, _BYTES_OF_A_PIECE // max(1, math.prod(self.shape)))
        for start in range(0, len(self), step):
            if self.rows is None and mapping_of(self.x) is None:
                yield self.x[start : start + step]
            else:
                yield self.take(np.arange(start, min(start + step, len(self))))

    def subset(self, indices: NDArray[np.int64]) -> Images:
        """The images of these numbers; rows of a mapped file are not copied."""
        paths = None if self.paths is None else tuple(self.paths[i] for i in indices)
        if self.rows is None:
            return Images(self.x[indices], self.y[indices], paths)
        return Images(self.x, self.y[indices], paths, self.rows[indices])


def read_image(
    path: str | Path, *, channels: int | None, size: Size | None, resize: str = STRETCH
) -> NDArray[np.uint8]:
    """Decode one image file into uint8 (C,H,W).

    Its content says which of `formats.FORMATS` it is, not its name.  Of an animation, or of several pages,
    the first is taken.  The image is turned upright by its EXIF orientation.  Of more than 8 bits a
    channel, the 8 highest are kept; a file of 16 bits without a value above 255 is refused.  A transparent
    image is laid over white.  Then the image is converted to ``channels`` and brought to ``size``
    (bilinear, antialiased).

    An image has MOST_PIXELS at most.  A larger JPEG is decoded at a half, a quarter or an eighth of its
    height and width, if ``size`` is no larger than that.

    Args:    channels 1 (grey) | 3 (RGB) | None: 1 if the file is grey, else 3
             size side of a square | (H, W) | None: the file's own
             resize how an image of other proportions gets the size, one of `resize.RESIZE`
    Raises:  DataError naming the file, if it is missing or not an intact image
             ValueError for other channels or sizes
    """
    return describe_image(Path(path), channels=channels, size=size, resize=resize).pixels


def describe_image(
    path: Path,
    *,
    channels: int | None,
    size: Size | None,
    resize: str = STRETCH,
    contents: Contents = _FILES,
) -> Described:
    """`read_image` of an image that ``contents`` has, and what it is like."""
    if channels not in (None, 1, 3):
        raise ValueError(f"channels: expected 1, 3 or None, got {channels}")
    image, mode = _open(path, size, contents)
    upright = image.height, image.width
    if channels is not None:
        image = image.convert("L" if channels == 1 else "RGB")
    if size is not None:
        image = resized(image, size, resize)
    pixels = np.asarray(image)
    pixels = pixels[None].copy() if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return Described(pixels, upright, mode)


def convert_channels(x: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Images (N,C,H,W) with 1 (grey) or 3 (RGB) channels, as `read_image` converts them."""
    if x.shape[1] == channels:
        return x
    if x.shape[1] == 1:
        return np.repeat(x, channels, axis=1)
    grey = [np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L")) for image in x]
    return np.stack(grey)[:, None]


def image_size(path: Path, contents: Contents = _FILES) -> tuple[int, int]:
    """(H,W) of an image file by its header, without decoding it; a PNG's is not turned upright.

    Raises:  DataError naming the file
    """
    with _opened(path, contents) as image:
        # A PNG may tell its orientation after its pixels.
        turned = image.format != "PNG" and image.getexif().get(_ORIENTATION, 1) > 4
        return (image.width, image.height) if turned else (image.height, image.width)


def _open(path: Path, size: Size | None, contents: Contents) -> tuple[Image.Image, str]:
    """The decoded file in mode L or RGB, and the file's own mode; ``size`` is what it will be scaled to."""
    with _opened(path, contents) as image:
        _limit_pixels(image, size)
        depth = depth_of(image)
        mode = SIXTEEN_BITS if image.mode.startswith("I") else image.mode
        ImageOps.exif_transpose(image, in_place=True)
        return _grey_or_rgb(to_8_bits(image, depth)), mode


@contextmanager
def _opened(path: Path, contents: Contents) -> Iterator[Image.Image]:
    """The file with its header read, not yet decoded.  All that goes wrong becomes a DataError."""
    form = "file"
    try:
        with warnings.catch_warnings():
            # Pillow warns of harmless oddities, and of more pixels than a limit; _limit_pixels has another.
            warnings.simplefilter("ignore")
            # Pillow gets the bytes, not the file: there it would allocate whatever a false length asks for.
            content = contents.read(path)
            if isinstance(content, np.ndarray):
                yield Image.fromarray(content)
                return
            form = pillows_format(path, content)
            if form == "PNG":
                content = without_texts(content)
            check_scans(content)
            with Image.open(io.BytesIO(content), formats=[form]) as image:
                yield image
    except DataError:
        raise
    except MemoryError as error:
        raise MemoryError(f"{path}: not enough memory to decode this image") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: cannot be read as an image: it only begins as a {form} does") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {_too_many('more')}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read as an image: {error.strerror or error}") from error
    except Exception as error:  # A corrupt file can make Pillow's decoders raise any exception.
        raise DataError(f"{path}: cannot be read as an image: {error}") from error


def _limit_pixels(image: Image.Image, size: Size | None) -> None:
    """Have a large JPEG decoded smaller, and refuse an image that has more than MOST_PIXELS then."""
    # A progressive JPEG would be in memory as a whole before it is scaled.
    scales = image.format in ("JPEG", "MPO") and not image.info.get("progressive")
    if image.width * image.height > MOST_PIXELS and scales and size is not None:
        side = max(height_width(size))
        image.draft(None, (side, side))
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(_too_many(f"{image.width}x{image.height}"))


def _too_many(pixels: str) -> str:
    return f"expected an image of at most {MOST_PIXELS:,} pixels, got {pixels}; scale it down first"


def _grey_or_rgb(image: Image.Image) -> Image.Image:
    """The image in mode L if it is grey, else in mode RGB."""
    grey = image.mode in _GREY_MODES
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        colour = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    else:
        colour = image.convert("L" if grey else "RGB")
    if image.mode == "P":
        red, green, blue = colour.split()
        grey = red.tobytes() == green.tobytes() == blue.tobytes()
    return colour.convert("L") if grey else colour
