"""Image files are known by their content, whatever they are called."""

import io
import sys

import numpy as np
import pytest
from PIL import Image, features

from minicnn.data import DataError, read_image
from minicnn.data.formats import FORMATS, HEAD, format_of

COLOUR = (200, 30, 90)
LOSSY = ("JPEG", "WEBP", "AVIF", "HEIC")


def encoded(name):
    if name == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    if name == "HEIC":
        pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
        pillow_heif.register_heif_opener()
    file = io.BytesIO()
    Image.new("RGB", (16, 12), COLOUR).save(file, {"HEIC": "HEIF"}.get(name, name))
    return file.getvalue()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("file", ["image", "image.jfif", "image.JPG", "image.txt", "image.gif"])
def test_the_content_decides(tmp_path, name, file):
    (tmp_path / file).write_bytes(encoded(name))
    got = read_image(tmp_path / file, channels=3, size=None)
    assert got.shape == (3, 12, 16)
    np.testing.assert_allclose(got[:, 5, 5], COLOUR, rtol=0, atol=5 if name in LOSSY else 0)


@pytest.mark.parametrize("name", FORMATS)
def test_the_first_bytes_suffice(name):
    assert format_of(encoded(name)[:HEAD]) == name


@pytest.mark.parametrize(
    "content",
    [b"", b"BMW builds cars, so this is a text", b"P1", b"Paris", b"RIFF1234WAVEfmt ",
     b"\0" * 64,
     b"\0\0\0\x18ftypisom\0\0\2\0isomiso2mp41", b"%!PS-Adobe-3.0 EPSF-3.0", b"8BPS\0\1"],
)  # fmt: skip
def test_other_files_are_no_images(content):
    assert format_of(content) is None


@pytest.mark.parametrize(
    ("brands", "name"),
    [
        (b"mif1....avifmiaf", "AVIF"),
        (b"mif1....heicmiaf", "HEIC"),
        (b"avis....msf1", "AVIF"),
        (b"heix....", "HEIC"),
    ],
)
def test_brands_tell_avif_from_heic(brands, name):
    assert format_of(bytes([0, 0, 0, 8 + len(brands)]) + b"ftyp" + brands) == name


def test_a_camera_s_raw_file_is_not_taken_for_the_preview_in_it(tmp_path):
    (tmp_path / "photo.NEF").write_bytes(encoded("TIFF"))
    with pytest.raises(
        DataError, match=r"photo\.NEF: expected an image of PNG, .*, got one of the kind raw"
    ):
        read_image(tmp_path / "photo.NEF", channels=3, size=None)


def test_a_decoder_that_is_missing_is_named(tmp_path, monkeypatch):
    (tmp_path / "photo.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "other.png").write_bytes(b"\0\0\0\x18ftypavif\0\0\0\0mif1avif")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(DataError, match=r"photo\.jpg: HEIC: needs pillow-heif: pip install pillow-heif"):
        read_image(tmp_path / "photo.jpg", channels=3, size=None)
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    monkeypatch.setattr(Image, "init", lambda: False)
    with pytest.raises(DataError, match=r"other\.png: AVIF: needs Pillow 11\.3 or newer"):
        read_image(tmp_path / "other.png", channels=3, size=None)


def test_what_only_begins_as_an_image_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"II*\0\0\0\0\0" + b"\0" * 60)
    with pytest.raises(DataError, match=r"a\.png: cannot be read as an image"):
        read_image(tmp_path / "a.png", channels=3, size=None)


def test_the_first_image_of_an_animation_is_taken(tmp_path):
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    first.save(tmp_path / "a.webp", save_all=True, append_images=[second], lossless=True)
    assert read_image(tmp_path / "a.webp", channels=3, size=None)[:, 0, 0].tolist() == [255, 0, 0]
