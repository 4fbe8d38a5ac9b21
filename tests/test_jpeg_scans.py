"""JPEG files that ask for more passes over their pixels than any encoder makes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicnn.data import DataError, read_image
from minicnn.data.jpeg_scans import MOST_SCANS, check_scans, count_scans


def jpeg(mode: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def with_scans(content: bytes, count: int) -> bytes:
    """The file with its last scan repeated."""
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * (count - count_scans(content)) + content[-2:]


@pytest.mark.parametrize(
    ("mode", "progressive", "scans"),
    [("L", False, 1), ("L", True, 6), ("RGB", False, 1), ("RGB", True, 10), ("CMYK", True, 18)],
)
def test_what_libjpeg_writes_is_admitted(mode: str, progressive: bool, scans: int) -> None:
    content = jpeg(mode, progressive=progressive)
    assert count_scans(content) == scans
    check_scans(content)


def test_a_thumbnail_is_not_counted() -> None:
    thumbnail = b"Exif\0\0" + jpeg("RGB", progressive=True)
    assert count_scans(jpeg("RGB", exif=thumbnail)) == 1
    assert count_scans(jpeg("L") + jpeg("L", progressive=True)) == 1  # behind the end


def test_too_many_scans_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    content = jpeg("L", progressive=True)
    path.write_bytes(with_scans(content, MOST_SCANS))
    whole = read_image(path, channels=None, size=None)
    path.write_bytes(with_scans(content, MOST_SCANS + 1))
    with pytest.raises(DataError, match=r"x\.jpg: .*expected a JPEG of at most 32 scans, got 33"):
        read_image(path, channels=None, size=None)
    assert whole.shape == (1, 24, 32)


@pytest.mark.parametrize("length", range(0, 700, 13))
def test_a_file_that_is_cut_is_counted_to_its_end(length: int) -> None:
    content = jpeg("RGB", progressive=True)
    assert count_scans(content[:length]) <= 10
