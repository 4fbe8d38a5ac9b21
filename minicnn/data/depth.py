"""Images of more than 8 bits a channel become 8 bits by what their file says, never by what others hold.

The rule is the same for training and for prediction: the range that the file declares is the range that
counts, and of each value the 8 highest bits of it are kept.  Pillow does so for colours, and scales PPM's
values by the maximum in the header.  PNG's sBIT changes nothing: the values fill the whole range all the
same.  A file that declares 16 bits and has no value above 255 says one thing and does another.  It would be
black, so it is refused.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin

_UNSIGNED, _WHITE_IS_ZERO = 1, 0  # values of TIFF's SampleFormat and PhotometricInterpretation
_HIGHEST_OF_8_BITS = 0xFF


class Depth(NamedTuple):
    """How a file stores a channel's values: with so many bits, and whether 0 is white."""

    bits: int
    white_is_zero: bool = False


def depth_of(image: Image.Image) -> Depth:
    """The depth of an image that is not decoded yet.

    Raises:  ValueError for what has no range to scale by: signed, 32-bit and floating-point values
    """
    if image.mode == "F":
        raise ValueError("expected 8 or 16 bits a channel, got floating-point pixels")
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return Depth(16 if image.mode.startswith("I") or _is_deep_colour(image) else 8)
    tags = image.tag_v2
    bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    if bits > 16:
        raise ValueError(f"expected 8 or 16 bits a channel, got {bits}")
    if set(tags.get(TiffImagePlugin.SAMPLEFORMAT, (_UNSIGNED,))) != {_UNSIGNED}:
        raise ValueError("expected unsigned values, got signed ones")
    inverted = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO
    return Depth(bits, inverted and image.mode.startswith("I"))  # Pillow itself turns 8 bits


def to_8_bits(image: Image.Image, depth: Depth) -> Image.Image:
    """The decoded image with 8 bits a channel.

    Raises:  ValueError if it should have 16 and has no value above 255
    """
    if depth.bits == 16:
        _refuse_8_bits(image)
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.uint16) >> (depth.bits - 8)
    grey = values.astype(np.uint8)
    return Image.fromarray(255 - grey if depth.white_is_zero else grey)


def _is_deep_colour(image: Image.Image) -> bool:
    """Whether a PNG or PPM has 16 bits in each of its channels, of which Pillow will keep the high ones."""
    tiles = getattr(image, "tile", [])
    arguments = tiles[0][3] if tiles else ""  # codec, area, place in the file, arguments
    if image.format == "PPM":
        return isinstance(arguments, tuple) and arguments[-1] > _HIGHEST_OF_8_BITS
    return image.format == "PNG" and str(arguments).endswith(";16B")


def _refuse_8_bits(image: Image.Image) -> None:
    """Refuse what was stored with 16 bits and has values of 8 bits."""
    if image.mode.startswith("I"):
        is_black = 0 < np.asarray(image).max() <= _HIGHEST_OF_8_BITS
    else:  # the high bytes are left; PPM's are rounded
        is_black = np.asarray(image).max() <= (1 if image.format == "PPM" else 0)
    if is_black:
        raise ValueError(
            "expected values up to 65535 in an image of 16 bits a channel, got none above 255: "
            "save it with 8 bits a channel, or multiply its values by 257"
        )
