"""folder:DIR and the decoding of image files."""

import contextlib
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minicnn import data
from minicnn.data import DataError, images, read_image

SHADES = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)
COLOURS = np.stack([SHADES, SHADES[::-1], SHADES[:, ::-1]], axis=-1)


def make_folder(root, counts, image=None):
    """Class folders of so many images each; every image has a shade of its own."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            picture = image or Image.new("L", (6, 5), 100 * label + i)
            picture.save(root / name / f"{i}.png")
    return f"folder:{root}"


# ---- one image -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(SHADES), SHADES[None]),
        (Image.fromarray(COLOURS), COLOURS.transpose(2, 0, 1)),
        (Image.fromarray(SHADES.astype(np.uint16) * 257), SHADES[None]),
        (Image.fromarray(SHADES > 99), np.where(SHADES > 99, 255, 0)[None]),
        (Image.fromarray(SHADES).convert("P"), SHADES[None]),
        (Image.new("P", (2, 2)), np.zeros((1, 2, 2))),
        (Image.new("RGBA", (2, 2), (0, 0, 0, 0)), np.full((3, 2, 2), 255)),
        (Image.new("RGBA", (2, 2), (9, 8, 7, 255)), np.tile([[[9]], [[8]], [[7]]], (1, 2, 2))),
        (Image.new("LA", (2, 2), (0, 128)), np.full((1, 2, 2), 127)),
    ],
    ids=["L", "RGB", "I;16", "1", "P-grey", "P-black", "RGBA-clear", "RGBA-opaque", "LA-half"],
)
def test_modes(tmp_path, image, expected):
    image.save(tmp_path / "image.png")
    got = read_image(tmp_path / "image.png", channels=None, size=None)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, expected)
    assert got.flags.c_contiguous


def test_coloured_palette_is_rgb(tmp_path):
    image = Image.fromarray(COLOURS).quantize(64)
    image.save(tmp_path / "image.png")
    got = read_image(tmp_path / "image.png", channels=None, size=None)
    np.testing.assert_array_equal(got, np.asarray(image.convert("RGB")).transpose(2, 0, 1))


def test_transparent_palette_is_laid_over_white(tmp_path):
    Image.new("P", (2, 2), 0).save(tmp_path / "image.gif", transparency=0)
    got = read_image(tmp_path / "image.gif", channels=1, size=None)
    np.testing.assert_array_equal(got, np.full((1, 2, 2), 255))


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "image.jpg")
    got = read_image(tmp_path / "image.jpg", channels=None, size=None)
    assert got.shape == (3, 8, 8)
    assert got[0].min() > 200
    assert got[1:].max() < 50


@pytest.mark.parametrize(("channels", "size", "shape"), [(1, 7, (1, 7, 7)), (3, (4, 9), (3, 4, 9))])
def test_channels_and_size(tmp_path, channels, size, shape):
    Image.fromarray(COLOURS).save(tmp_path / "image.png")
    assert read_image(tmp_path / "image.png", channels=channels, size=size).shape == shape


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise to see the image upright
    Image.fromarray(SHADES).save(tmp_path / "image.png", exif=exif)
    got = read_image(tmp_path / "image.png", channels=1, size=None)
    np.testing.assert_array_equal(got[0], np.rot90(SHADES, -1))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "expected an image, got a file that is none of PNG, JPEG, "),
        (b"not an image", "expected an image, got a file that is none of PNG, JPEG, "),
        (None, "No such file or directory"),
    ],
)
def test_unreadable_image_is_named(tmp_path, content, words):
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"broken\.png: .*{words}"):
        read_image(path, channels=1, size=28)


def with_png_size(content, width, height):
    """A PNG file's bytes whose header claims another size."""
    header = b"IHDR" + struct.pack(">2I", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_001), (1 << 30, 1 << 30)])
def test_more_pixels_than_the_limit_are_refused(tmp_path, width, height):
    path = tmp_path / "bomb.png"
    Image.new("L", (1, 1)).save(path)
    path.write_bytes(with_png_size(path.read_bytes(), width, height))
    got = f"{width}x{height}" if width < 1 << 30 else "more"
    with pytest.raises(
        DataError, match=rf"bomb\.png: .*at most 100,000,000 pixels, got {got}; scale it down"
    ):
        read_image(path, channels=None, size=None)


@pytest.mark.parametrize("suffix", ["webp", "png", "gif"])
def test_a_small_file_may_hold_many_pixels(tmp_path, suffix):
    path = tmp_path / f"plain.{suffix}"
    Image.new("L", (2400, 1800), 7).save(path)
    assert path.stat().st_size < 20_000
    got = read_image(path, channels=1, size=None)
    assert (got.shape, got.min(), got.max()) == ((1, 1800, 2400), 7, 7)


def test_a_jpeg_above_the_limit_is_decoded_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MOST_PIXELS", 1000)
    picture = Image.linear_gradient("L").resize((80, 40))
    for name, options in (("plain.jpg", {}), ("progressive.jpg", {"progressive": True})):
        picture.save(tmp_path / name, quality=95, **options)
    got = read_image(tmp_path / "plain.jpg", channels=1, size=(10, 20))
    expected = np.asarray(picture.resize((20, 10), Image.Resampling.BOX), np.float64)
    np.testing.assert_allclose(got[0], expected, atol=8)
    for name, size in (("plain.jpg", None), ("plain.jpg", 70), ("progressive.jpg", 10)):
        with pytest.raises(DataError, match=rf"{name}: .*at most 1,000 pixels, got 80x40; scale it down"):
            read_image(tmp_path / name, channels=1, size=size)


def text_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


LONG = b"history " * 400_000


@pytest.mark.parametrize(
    "chunk",
    [
        text_chunk(b"tEXt", b"Comment\0" + LONG * 25),
        text_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LONG)),
        text_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG)),
        text_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + b"not deflated"),
        text_chunk(b"iCCP", b"profile\0\0" + zlib.compress(LONG)),
    ],
    ids=["tEXt", "zTXt", "iTXt", "iTXt-broken", "iCCP"],
)
def test_png_with_a_long_text_is_read(tmp_path, chunk):
    path = tmp_path / "image.png"
    Image.fromarray(SHADES).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:33] + chunk + content[33:])  # right after the header
    np.testing.assert_array_equal(read_image(path, channels=None, size=None), SHADES[None])


@pytest.mark.parametrize("compressed", [False, True])
def test_orientation_in_a_png_text_is_applied(tmp_path, compressed):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    text = zlib.compress(xmp) if compressed else xmp
    chunk = text_chunk(b"iTXt", b"XML:com.adobe.xmp\0" + bytes([compressed, 0]) + b"\0\0" + text)
    path = tmp_path / "image.png"
    Image.fromarray(SHADES).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:33] + chunk + content[33:])
    np.testing.assert_array_equal(read_image(path, channels=1, size=None)[0], np.rot90(SHADES, -1))


def test_a_false_length_makes_no_room(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(SHADES).save(path)
    at = path.read_bytes().index(b"IDAT") - 4
    content = bytearray(path.read_bytes())
    content[at : at + 4] = b"\x40\0\0\0"
    path.write_bytes(content)
    tracemalloc.start()
    with contextlib.suppress(DataError):
        read_image(path, channels=None, size=None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


def test_formats_that_run_other_programs_are_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(path, "EPS")
    with pytest.raises(DataError, match="got a file that is none of PNG, JPEG"):
        read_image(path, channels=None, size=None)


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(SHADES.astype(np.float32)).save(tmp_path / "image.tif")
    with pytest.raises(DataError, match=r"image\.tif: .*got floating-point pixels"):
        read_image(tmp_path / "image.tif", channels=1, size=None)


def test_read_image_checks_its_arguments(tmp_path):
    Image.fromarray(SHADES).save(tmp_path / "image.png")
    with pytest.raises(ValueError, match="channels: expected 1, 3 or None, got 4"):
        read_image(tmp_path / "image.png", channels=4, size=None)
    with pytest.raises(ValueError, match="image size: expected at least 1, got 0"):
        read_image(tmp_path / "image.png", channels=1, size=0)


@pytest.fixture(scope="module", params=["png", "jpeg", "gif", "bmp"])
def valid_file(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / f"image.{request.param}"
    Image.fromarray(COLOURS).save(path)
    return path.read_bytes(), path.with_stem("mutated")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_mutated_image_is_read_or_refused(valid_file, data):
    valid, path = valid_file
    content = bytearray(valid)
    edits = st.tuples(st.integers(0, len(valid) - 1), st.integers(0, 255))
    for position, byte in data.draw(st.lists(edits, max_size=8)):
        content[position] = byte
    path.write_bytes(content[: data.draw(st.integers(0, len(valid)))])
    image = np.empty((3, 8, 8), np.uint8)
    with contextlib.suppress(DataError):
        image = read_image(path, channels=3, size=8)
    assert (image.shape, image.dtype) == ((3, 8, 8), np.uint8)


# ---- a folder ------------------------------------------------------------------------------------


def test_folder_is_split_by_seed(tmp_path):
    name = make_folder(tmp_path, {"cat": 10, "dog": 25})
    (tmp_path / "README.txt").write_text("passed over")
    (tmp_path / "cat" / ".hidden.png").write_bytes(b"passed over")
    dataset = data.load(name)
    assert dataset.class_names == ["cat", "dog"]
    assert np.bincount(dataset.train.y).tolist() == [8, 20]
    assert np.bincount(dataset.test.y).tolist() == [2, 5]
    shades = [int(image[0, 0, 0]) for part in (dataset.train, dataset.test) for image in part.x]
    assert sorted(shades) == [*range(10), *range(100, 125)]
    assert all(shade // 100 == label for shade, label in zip(shades[:28], dataset.train.y, strict=True))
    assert data.load(name).fingerprint == dataset.fingerprint
    assert data.load(name, seed=1).fingerprint != dataset.fingerprint


def test_folder_with_train_and_test(tmp_path):
    make_folder(tmp_path / "train", {"a": 3, "b": 2})
    make_folder(tmp_path / "test", {"a": 1, "b": 1})
    dataset = data.load(f"folder:{tmp_path}", image_size=(4, 3))
    assert dataset.train.x.shape == (5, 1, 4, 3)
    assert dataset.test.y.tolist() == [0, 1]


def test_folder_limits(tmp_path):
    name = make_folder(tmp_path, {"a": 20, "b": 20})
    dataset = data.load(name, limit_train=6, limit_test=2)
    assert dataset.train.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test.y.tolist() == [0, 1]


def test_one_coloured_image_makes_the_folder_rgb(tmp_path):
    name = make_folder(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "b" / "deep").mkdir()
    Image.new("RGB", (6, 5), (1, 2, 3)).save(tmp_path / "b" / "deep" / "new.PNG")
    dataset = data.load(name)
    assert dataset.train.x.shape[1:] == (3, 5, 6)
    assert dataset.mean.shape == (3,)


def test_folder_preprocesses_as_prediction_does(tmp_path):
    name = make_folder(tmp_path, {"a": 2, "b": 2}, Image.fromarray(COLOURS))
    dataset = data.load(name, image_size=9)
    image = read_image(tmp_path / "a" / "0.png", channels=3, size=9)
    np.testing.assert_array_equal(dataset.train.x[0], image)


def test_different_sizes_suggest_image_size(tmp_path):
    name = make_folder(tmp_path, {"a": 2, "b": 2})
    Image.new("L", (7, 5)).save(tmp_path / "b" / "wide.png")
    with pytest.raises(DataError, match=r"png: expected \d+x5 pixels as .*, got \d+x5; --image-size"):
        data.load(name)
    assert data.load(name, image_size=8).train.x.shape[1:] == (1, 8, 8)


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: expected a folder with one folder of images a class"):
        data.load(f"folder:{tmp_path}/nowhere")


def test_too_few_classes(tmp_path):
    name = make_folder(tmp_path, {"a": 2})
    with pytest.raises(DataError, match=r"expected at least 2 class folders, got 1"):
        data.load(name)


def test_class_without_images(tmp_path):
    name = make_folder(tmp_path, {"a": 2, "b": 0})
    with pytest.raises(DataError, match=r"b: expected images of the class 'b', got none"):
        data.load(name)


def test_class_with_one_image(tmp_path):
    name = make_folder(tmp_path, {"a": 2, "b": 1})
    with pytest.raises(
        DataError, match=r"expected at least 2 images of the class 'b', one to train and one to test, got 1"
    ):
        data.load(name)


def test_other_classes_in_test_than_in_train(tmp_path):
    make_folder(tmp_path / "train", {"a": 1, "b": 1})
    make_folder(tmp_path / "test", {"a": 1, "c": 1})
    with pytest.raises(DataError, match=r"test: expected classes that were learnt, a, b, got c"):
        data.load(f"folder:{tmp_path}")


def test_unreadable_image_in_a_folder(tmp_path):
    name = make_folder(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"a/0\.png: expected an image"):
        data.load(name)
