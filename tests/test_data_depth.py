"""Images of more than 8 bits: what their files say is what counts."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from minicnn import data
from minicnn.app.command_line import make_console
from minicnn.app.commands.train import parse
from minicnn.app.settings import Config
from minicnn.app.summary import load
from minicnn.data import DataError, read_image

RISING = [0, 1000, 40_000, 65_535]
HIGH_BYTES = [value >> 8 for value in RISING]


def tiff(values, bits=16, sample_format=1, photometric=1, samples=1):
    """A TIFF of one row of grey or colour, little-endian."""
    strip = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}H", *values)
    width = len(strip) * 8 // bits // samples
    entries = [(256, width), (257, 1), (259, 1), (262, photometric), (273, 8), (277, samples), (278, 1)]
    at = 8 + len(strip) + 2 + 12 * 10 + 4  # after everything else: the bits of each of several channels
    directory = {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries}
    directory[258] = struct.pack("<HHII", 258, 3, samples, bits if samples == 1 else at)
    directory[279] = struct.pack("<HHII", 279, 4, 1, len(strip))
    directory[339] = struct.pack("<HHIHH", 339, 3, 1, sample_format, 0)
    body = b"".join(directory[tag] for tag in sorted(directory))
    head = b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip
    return (
        head
        + struct.pack("<H", len(directory))
        + body
        + bytes(4)
        + struct.pack(f"<{samples}H", *[bits] * samples)
    )


def png(values, colour_type=0, samples=1, more=b""):
    """A PNG of one row with 16 bits a channel."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">2I5B", len(values) // samples, 1, 16, colour_type, 0, 0, 0)
    row = zlib.compress(b"\0" + struct.pack(f">{len(values)}H", *values))
    chunks = chunk(b"IHDR", header) + (chunk(b"sBIT", more) if more else b"") + chunk(b"IDAT", row)
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")


def pgm(values, maximum, kind=b"P5"):
    width = len(values) // (3 if kind == b"P6" else 1)
    return kind + b" %d 1 %d\n" % (width, maximum) + struct.pack(f">{len(values)}H", *values)


def read(tmp_path, content):
    (tmp_path / "image").write_bytes(content)
    return read_image(tmp_path / "image", channels=None, size=None)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (png(RISING), HIGH_BYTES),
        (png(RISING, more=b"\x0c"), HIGH_BYTES),
        (tiff(RISING), HIGH_BYTES),
        (tiff(RISING, photometric=0), [255 - value for value in HIGH_BYTES]),
        (tiff(bytes([0x00, 0x00, 0x64, 0x7D, 0x0F, 0xFF]), bits=12), [0, 6, 125, 255]),
        (tiff(bytes([0, 10, 255]), bits=8, photometric=0), [255, 245, 0]),
        (pgm([0, 100, 500, 1000], 1000), [0, 25, 128, 255]),
        (pgm(RISING, 65_535), HIGH_BYTES),
        (png([0, 0, 0, 0]), [0, 0, 0, 0]),
    ],
    ids=[
        "PNG",
        "PNG-sBIT",
        "TIFF",
        "TIFF-white-0",
        "TIFF-12",
        "TIFF-8-white-0",
        "PGM-1000",
        "PGM",
        "black",
    ],
)
def test_grey_is_scaled_by_what_the_file_says(tmp_path, content, expected):
    assert read(tmp_path, content)[0, 0].tolist() == expected


COLOURS = [0, 1000, 40_000, 65_535, 0, 300]


@pytest.mark.parametrize(
    "content",
    [png(COLOURS, 2, 3), tiff(COLOURS, samples=3, photometric=2)],
    ids=["PNG", "TIFF"],
)
def test_of_16_bit_colours_the_high_bytes_are_kept(tmp_path, content):
    assert read(tmp_path, content)[:, 0].T.ravel().tolist() == [value >> 8 for value in COLOURS]


@pytest.mark.parametrize(
    "content",
    [
        png([0, 100, 255]),
        png([0, 100, 255] * 2, 2, 3),
        png([0, 100, 255, 255] * 2, 6, 4),
        tiff([0, 100, 255]),
        tiff([0, 100, 255] * 2, samples=3, photometric=2),
        pgm([0, 100, 255], 65_535),
        pgm([0, 100, 255], 65_535, b"P6"),
    ],
    ids=["PNG", "PNG-RGB", "PNG-RGBA", "TIFF", "TIFF-RGB", "PGM", "PPM"],
)
def test_values_of_8_bits_in_16_are_refused(tmp_path, content):
    with pytest.raises(DataError, match=r"image: .*up to 65535 .*got none above 255: save it with 8 bits"):
        read(tmp_path, content)


def test_a_black_drawing_with_transparency_is_no_8_bit_image(tmp_path):
    got = read(tmp_path, png([0, 0, 0, 65_535, 0, 0, 0, 0], 6, 4))
    assert got[:, 0].tolist() == [[0, 255]] * 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tiff(struct.pack("<2i", 5, 70_000), bits=32), "expected 8 or 16 bits a channel, got 32"),
        (tiff(struct.pack("<2h", -5, 300), sample_format=2), "expected unsigned values, got signed ones"),
        (tiff(bytes([1, 255]), bits=8, sample_format=2), "expected unsigned values, got signed ones"),
    ],
)
def test_what_has_no_range_is_refused(tmp_path, content, words):
    with pytest.raises(DataError, match=rf"image: .*{words}"):
        read(tmp_path, content)


def test_a_deep_image_is_turned_upright(tmp_path):
    values = np.arange(6, dtype=np.uint16).reshape(2, 3) * 10_000
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values).save(tmp_path / "image.png", exif=exif)
    got = read_image(tmp_path / "image.png", channels=None, size=None)
    np.testing.assert_array_equal(got[0], np.rot90(values >> 8, -1))


def test_a_folder_of_8_bit_values_names_every_file(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.png").write_bytes(png([0, 100 + i, 255]))
    with pytest.raises(DataError, match=r"6 files cannot be used; .*multiply its values by 257"):
        data.load(f"folder:{tmp_path}")


@pytest.mark.parametrize(("highest", "warned"), [(4095, True), (16_383, True), (16_384, False)])
def test_deep_images_of_small_values_are_warned_of(tmp_path, capsys, highest, warned):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.png").write_bytes(png([0, 1000 + i, highest]))
    load(make_console(), Config.resolve(vars(parse(["--dataset", f"folder:{tmp_path}"]))))
    words = (
        f"no value of the 16-bit images is above {highest} of 65535, so {(highest >> 8) + 1} of 256 shades"
    )
    assert (words in capsys.readouterr().out) == warned
