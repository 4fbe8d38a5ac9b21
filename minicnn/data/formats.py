"""The formats of image files: how a content shows which one it is, and which of them are decoded.

What a file is called hardly matters: browsers write JPEG as ``.jfif`` and AVIF as ``.jpg``, and some
programs write no suffix at all.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from minicnn.data.errors import DataError

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "HEIC")
"""The formats that are decoded.  Pillow knows more, and for some, such as EPS, runs other programs."""

HEAD = 64
"""As many first bytes of a file show its format."""

_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # lengths: "BM" alone could begin a text
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_PILLOWS_NAMES = {"HEIC": "HEIF"}

SUFFIXES = frozenset(
    [
        ".png",
        ".apng",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".jif",
        ".pjpeg",
        ".pjp",
        ".mpo",
        ".gif",
        ".bmp",
        ".dib",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".pfm",
        ".avif",
        ".avifs",
        ".heic",
        ".heics",
        ".heif",
        ".heifs",
        ".hif",
    ]
)
"""How names of images in FORMATS end.  A file with such a name that is no such image is damaged."""

OTHER_SUFFIXES = {
    ".jxl": "JPEG XL", ".jp2": "JPEG 2000", ".j2k": "JPEG 2000", ".jpx": "JPEG 2000", ".jpf": "JPEG 2000",
    ".svg": "SVG", ".psd": "Photoshop", ".xcf": "GIMP", ".ico": "icon", ".icns": "icon", ".cur": "icon",
    ".tga": "Targa", ".pcx": "PCX", ".exr": "OpenEXR", ".hdr": "Radiance", ".dds": "DDS", ".qoi": "QOI",
    ".eps": "PostScript", ".ps": "PostScript", ".ai": "Illustrator", ".emf": "EMF", ".wmf": "WMF",
    ".fits": "FITS", ".dcm": "DICOM", ".nii": "NIfTI", ".czi": "Zeiss", ".nd2": "Nikon", ".lif": "Leica",
    ".cr2": "raw", ".cr3": "raw", ".crw": "raw", ".nef": "raw", ".nrw": "raw", ".arw": "raw", ".dng": "raw",
    ".orf": "raw", ".rw2": "raw", ".raf": "raw", ".pef": "raw", ".srw": "raw", ".raw": "raw",
}  # fmt: skip
"""How names of images in other formats end.  A camera's raw file begins as a TIFF does, and holds a small
preview where a TIFF has its image, so there the name counts."""


def format_of(head: bytes) -> str | None:
    """Which of FORMATS the first HEAD bytes of a file belong to; None if to none."""
    for beginning, name in _BEGINNINGS:
        if head.startswith(beginning):
            return name
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:1] == b"P" and head[1:2] in b"123456f" and head[2:3] in b" \t\r\n#" and len(head) > 2:
        return "PPM"
    if head[4:8] == b"ftyp":
        return _format_of_brands(head)
    return None


def _format_of_brands(head: bytes) -> str | None:
    """AVIF and HEIC are one container: its brand tells them apart, or those that it is compatible with."""
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, length, 4))]
    if brands[0] in _HEIC_BRANDS or brands[0] in (b"avif", b"avis"):
        return "AVIF" if b"avif" in brands or b"avis" in brands else "HEIC"
    return None


def is_image_name(name: str) -> bool:
    """Whether a file's name says that it is an image, of any format."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122, several times as fast for many thousands
    return suffix in SUFFIXES or suffix in OTHER_SUFFIXES


def pillows_format(path: Path, content: bytes) -> str:
    """The name by which Pillow decodes this content of a file, once its decoder is there.

    Raises: DataError naming the file, with what it is instead, or what has to be installed
    """
    name = format_of(content[:HEAD])
    other = OTHER_SUFFIXES.get(path.suffix.lower())
    if other and name in (None, "TIFF"):
        raise DataError(f"{path}: expected an image of {', '.join(FORMATS)}, got one of the kind {other}")
    if name is None:
        raise DataError(f"{path}: expected an image, got a file that is none of {', '.join(FORMATS)}")
    if name == "AVIF":
        from PIL import Image, features

        Image.init()
        if "AVIF" not in Image.OPEN or not features.check_module("avif"):
            raise DataError(
                f"{path}: AVIF: needs Pillow 11.3 or newer, with its AVIF decoder: pip install -U pillow"
            )
    if name == "HEIC":
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ImportError:
            raise DataError(f"{path}: HEIC: needs pillow-heif: pip install pillow-heif") from None
    return _PILLOWS_NAMES.get(name, name)
