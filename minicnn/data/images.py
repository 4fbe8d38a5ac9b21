"""Images as uint8 arrays: how a file is decoded, for training and for prediction alike."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from minicnn.data.errors import DataError
from minicnn.data.progress import OnProgress, ignore

Size = int | tuple[int, int]
"""A square's side, or (H, W)."""

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
"""The formats that are decoded.  Pillow knows more, and for some, such as EPS, runs other programs."""

_GREY_MODES = ("1", "L", "LA")
_PIXELS_OF_ANY_FILE = 1 << 22  # an image may have as many, however small its file is
_PIXELS_OF_A_BYTE = 8 * 1032  # a byte of deflate expands to 1032 bytes at most, with 8 pixels in each


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images: x uint8 (N,C,H,W), y int64 (N,).  ``len`` is N.

    Raises: ValueError if x or y has another shape or dtype
    """

    x: NDArray[np.uint8]
    y: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.x.ndim != 4 or self.x.dtype != np.uint8:
            raise ValueError(f"x: expected uint8 (N,C,H,W), got {self.x.dtype} {self.x.shape}")
        if self.y.shape != (len(self.x),) or self.y.dtype != np.int64:
            raise ValueError(f"y: expected int64 ({len(self.x)},), got {self.y.dtype} {self.y.shape}")

    def __len__(self) -> int:
        return len(self.x)

    def subset(self, indices: NDArray[np.int64]) -> Images:
        return Images(self.x[indices], self.y[indices])


def height_width(size: Size) -> tuple[int, int]:
    """(H, W) of a Size.  Raises ValueError unless both are at least 1."""
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"image size: expected at least 1, got {size}")
    return height, width


def read_image(path: str | Path, *, channels: int | None, size: Size | None) -> NDArray[np.uint8]:
    """Decode one image file into uint8 (C,H,W).

    The image is turned upright by its EXIF orientation.  Of 16-bit grey, the high byte is kept.  A
    transparent image is laid over white.  Then the image is converted to ``channels`` and stretched to
    ``size`` (bilinear, antialiased).

    Args:    channels 1 (grey) | 3 (RGB) | None: 1 if the file is grey, else 3
             size side of a square | (H, W) | None: the file's own
    Raises:  DataError naming the file, if it is missing or not an intact image
             ValueError for other channels or sizes
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"channels: expected 1, 3 or None, got {channels}")
    image = _open(Path(path))
    if channels is not None:
        image = image.convert("L" if channels == 1 else "RGB")
    if size is not None:
        image = _resize(image, size)
    pixels = np.asarray(image)
    return pixels[None].copy() if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def resize_images(x: NDArray[np.uint8], size: Size, progress: OnProgress = ignore) -> NDArray[np.uint8]:
    """Images (N,C,H,W) stretched to ``size``, exactly as `read_image` does it."""
    height, width = height_width(size)
    if x.shape[2:] == (height, width):
        return x
    out = np.empty((*x.shape[:2], height, width), np.uint8)
    for n in range(len(x)):
        progress(n, len(x))
        for c in range(x.shape[1]):
            out[n, c] = _resize(Image.fromarray(x[n, c]), size)
    return out


def _resize(image: Image.Image, size: Size) -> Image.Image:
    height, width = height_width(size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _open(path: Path) -> Image.Image:
    """The decoded file in mode L or RGB."""
    try:
        with warnings.catch_warnings():
            # Most of Pillow's warnings are about harmless oddities.  Decompression bombs are not harmless.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Pillow gets the bytes, not the file: there it would allocate whatever a false length asks for.
            content = path.read_bytes()
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check_pixels(image, len(content))
                ImageOps.exif_transpose(image, in_place=True)
                return _grey_or_rgb(image)
    except UnidentifiedImageError as error:
        raise DataError(
            f"{path}: expected an image, got a file that is none of {', '.join(FORMATS)}"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read as an image: {error.strerror or error}") from error
    except Exception as error:  # A corrupt file can make Pillow's decoders raise any exception.
        raise DataError(f"{path}: cannot be read as an image: {error}") from error


def _check_pixels(image: Image.Image, size: int) -> None:
    """Refuse an image with more pixels than a file of ``size`` bytes can hold."""
    most = max(_PIXELS_OF_ANY_FILE, size * _PIXELS_OF_A_BYTE)
    if image.width * image.height > most:
        pixels = f"{image.width}x{image.height} pixels"
        raise ValueError(f"expected at most {most} pixels in {size} bytes, got {pixels}")


def _grey_or_rgb(image: Image.Image) -> Image.Image:
    """The image in mode L if it is grey, else in mode RGB."""
    if image.mode == "F":
        raise ValueError("expected 8 or 16 bits a channel, got floating-point pixels")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 0xFFFF) >> 8).astype(np.uint8))
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
