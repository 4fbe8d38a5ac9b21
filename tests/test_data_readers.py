"""The IDX reader: the array, or one clear error, and no more memory than the file justifies."""

import contextlib
import gzip
import math
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn.data import DataError
from minicnn.data.idx import read_idx, read_idx_pair, write_idx


def idx_bytes(array, type_byte=8):
    header = bytes([0, 0, type_byte, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


IMAGES = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
LABELS = np.array([2, 0, 1, 2], np.uint8)
VALID = idx_bytes(IMAGES)


def peak_bytes(function, *arguments):
    """Most memory that Python held during a call that may raise DataError."""
    tracemalloc.start()
    try:
        with contextlib.suppress(DataError):
            function(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ---- IDX -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gzip"])
def test_idx(tmp_path, pack):
    path = tmp_path / "images"
    path.write_bytes(pack(VALID))
    np.testing.assert_array_equal(read_idx(path, 3), IMAGES)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "expected an IDX file with magic 00000803, got nothing"),
        (b"\x89PNG\r\n", "expected an IDX file with magic 00000803, got 89504e47"),
        (idx_bytes(LABELS), "expected an IDX file with magic 00000803, got 00000801"),
        (idx_bytes(IMAGES, type_byte=13), "got 00000d03"),
        (VALID[:9], "expected a header of 16 bytes, got 9"),
        (VALID[:-1], r"truncated or corrupt: shape \(4, 5, 6\) needs 120 bytes of data"),
        (VALID + b"x", r"expected 120 bytes of data for shape \(4, 5, 6\), got more"),
        (idx_bytes(IMAGES[:0]), r"expected sizes of at least 1, got shape \(0, 5, 6\)"),
        (gzip.compress(VALID, mtime=0)[:-9], "truncated or corrupt gzip file"),
        (
            gzip.compress(VALID, mtime=0)[:-8] + bytes(8),
            "truncated or corrupt gzip file: .*incorrect data check",
        ),
        (gzip.compress(VALID[:-1], mtime=0), "truncated: shape .* needs 120 bytes of data, got 119"),
        (gzip.compress(VALID + b"x", mtime=0), "expected 120 bytes of data .* got more"),
        (gzip.compress(b"", mtime=0), "got nothing"),
        (b"\x1f\x8b", "truncated or corrupt gzip file"),
    ],
)
def test_bad_idx_is_named(tmp_path, content, words):
    path = tmp_path / "train-images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"train-images: .*{words}"):
        read_idx(path, 3)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gzip"])
def test_no_more_memory_than_the_file_justifies(tmp_path, pack):
    path = tmp_path / "images"
    path.write_bytes(pack(b"\0\0\x08\x03" + struct.pack(">3I", 60_000, 28, 28) + bytes(1000)))
    assert peak_bytes(read_idx, path, 3) < 1e6
    with pytest.raises(DataError, match="images: truncated"):
        read_idx(path, 3)


def test_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(VALID + bytes(50_000_000)))
    assert peak_bytes(read_idx, path, 3) < 1e6
    with pytest.raises(DataError, match="got more"):
        read_idx(path, 3)


def labels_of(count):
    return b"\0\0\x08\x01" + struct.pack(">I", count) + bytes(count)


@pytest.mark.parametrize(
    ("ndim", "shape", "words"),
    [
        (1, (1 << 22,), r".* got shape \(4194304,\)"),
        (3, (1 << 22, 1, 1), "expected at most 2,097,152 images or labels, "),
        (3, (1, 5000, 5000), "expected at most .* 4,096 pixels along a side "),
        (3, (1 << 21, 32, 33), "expected at most .* less than 2,147,483,648 bytes, "),
        (3, (10_000, 40, 50), r"truncated or corrupt: shape \(10000, 40, 50\) needs 20000000 bytes"),
    ],
)
def test_a_claim_is_checked_before_anything_is_unpacked(tmp_path, ndim, shape, words):
    """Of a small gzip file that holds all that it claims: a bomb."""
    path = tmp_path / "file"
    header = bytes([0, 0, 8, ndim]) + struct.pack(f">{ndim}I", *shape)
    path.write_bytes(gzip.compress(header + bytes(min(math.prod(shape), 20_000_000)), mtime=0))
    assert peak_bytes(read_idx, path, ndim) < 1e6
    with pytest.raises(DataError, match=f"file: {words}"):
        read_idx(path, ndim)


def test_many_labels_take_little_more_memory_than_they_are(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    write_idx(images, IMAGES)
    labels.write_bytes(gzip.compress(labels_of(2_000_000), mtime=0))
    assert peak_bytes(read_idx_pair, images, labels, 3) < 5e6
    with pytest.raises(DataError, match="labels: expected 4 labels"):
        read_idx_pair(images, labels, 3)


def test_a_gzip_file_of_several_members_is_one_stream(tmp_path):
    path = tmp_path / "images"
    parts = [gzip.compress(VALID[:7]), gzip.compress(b""), gzip.compress(VALID[7:]), bytes(30)]
    path.write_bytes(b"".join(parts))
    np.testing.assert_array_equal(read_idx(path, 3), IMAGES)
    path.write_bytes(gzip.compress(b"", mtime=0) * 1200 + parts[0])
    with pytest.raises(DataError, match="truncated or corrupt gzip file: more than 1000 members"):
        read_idx(path, 3)
    path.write_bytes(gzip.compress(VALID) + b"junk")
    with pytest.raises(DataError, match="truncated or corrupt gzip file: "):
        read_idx(path, 3)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "images"


def check_read_or_refused(path, content):
    """A valid array or DataError, and memory in proportion to the file."""
    path.write_bytes(content)
    assert peak_bytes(read_idx, path, 3) < 1e6 + 1100 * len(content)
    array = np.zeros((1, 1, 1), np.uint8)
    with contextlib.suppress(DataError):
        array = read_idx(path, 3)
    assert array.dtype == np.uint8
    assert array.ndim == 3
    assert array.size == math.prod(array.shape) > 0


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x1f\x8b", b"\x1f\x8b\x08\0", b"\0\0\x08\x03"]))
def test_random_bytes_are_read_or_refused(scratch, content, start):
    check_read_or_refused(scratch, start + content)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.booleans(), st.booleans())
def test_mutated_idx_is_read_or_refused(scratch, data, packed, repacked):
    content = bytearray(gzip.compress(VALID, mtime=0) if packed else VALID)
    edits = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255))
    for position, byte in data.draw(st.lists(edits, max_size=4)):
        content[position] = byte
    content = content[: data.draw(st.integers(0, len(content)))] + data.draw(st.binary(max_size=9))
    check_read_or_refused(scratch, gzip.compress(content) if repacked else bytes(content))


def test_labels_and_images_must_agree(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    write_idx(images, IMAGES)
    write_idx(labels, LABELS)
    pair = read_idx_pair(images, labels, 3)
    assert pair.x.shape == (4, 1, 5, 6)
    assert pair.y.tolist() == [2, 0, 1, 2]
    with pytest.raises(DataError, match="labels: expected labels from 0 to 1, got 2"):
        read_idx_pair(images, labels, 2)
    write_idx(labels, LABELS[:3])
    with pytest.raises(DataError, match=r"labels: expected 4 labels, as many as images in .*images, got 3"):
        read_idx_pair(images, labels, 3)
