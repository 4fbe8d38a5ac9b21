"""Datasets, limits, normalisation and batches."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicnn import data
from minicnn.data import Batches, DataError, Images, normalize, read_image
from minicnn.data.dataset import sample_files
from minicnn.data.idx import read_idx, write_idx
from minicnn.data.split import balanced_subset, stratified_split
from minicnn.data.torchvision_sets import read_torchvision_set

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(scope="module")
def sample():
    return data.load("fashion-mnist-sample")


def test_sample_is_balanced_and_described(sample):
    assert sample.train.x.shape == (10_000, 1, 28, 28)
    assert sample.test.x.shape == (2_000, 1, 28, 28)
    assert np.bincount(sample.train.y).tolist() == [1_000] * 10
    assert np.bincount(sample.test.y).tolist() == [200] * 10
    assert sample.class_names[9] == "Ankle boot"
    pixels = sample.train.x.astype(np.float64) / 255
    np.testing.assert_allclose(sample.mean, [pixels.mean()], rtol=1e-12)
    np.testing.assert_allclose(sample.std, [pixels.std()], rtol=1e-12)


def test_sample_is_small_and_licensed():
    folder = sample_files("train")[0].parent
    assert sum(file.stat().st_size for file in folder.iterdir()) < 6_000_000
    assert "Copyright © 2017 Zalando SE" in (folder / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="the whole Fashion-MNIST is not installed")
def test_sample_is_what_the_script_draws(sample):
    train, test, _ = read_torchvision_set("fashion-mnist", DEBIAN, download=False)
    assert (len(train), len(test)) == (60_000, 10_000)
    for whole, part in ((train, sample.train), (test, sample.test)):
        drawn = balanced_subset(whole.y, len(part), seed=0)
        np.testing.assert_array_equal(whole.x[drawn], part.x)
        np.testing.assert_array_equal(whole.y[drawn], part.y)


def test_loading_the_sample_imports_nothing_heavy():
    program = (
        "import sys; from minicnn import data; data.load('fashion-mnist-sample', limit_train=10);"
        "sys.exit(bool({'torch', 'torchvision', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


def test_fingerprint_changes_with_the_data_and_only_then(sample):
    again, fewer = data.load(sample.name), data.load(sample.name, limit_train=9_999)
    assert again.fingerprint == sample.fingerprint
    assert fewer.fingerprint != sample.fingerprint


def test_limits_keep_the_classes_balanced(sample):
    part = data.load(sample.name, limit_train=1_005, limit_test=20, seed=3)
    assert np.bincount(part.train.y).tolist() == [101] * 5 + [100] * 5
    assert np.bincount(part.test.y).tolist() == [2] * 10
    other = data.load(sample.name, limit_train=1_005, limit_test=20, seed=4)
    assert other.fingerprint != part.fingerprint


def test_balanced_subset_takes_what_there_is():
    y = np.array([0, 1, 1, 1, 1, 2, 2], np.int64)
    assert np.bincount(y[balanced_subset(y, 5, seed=0)]).tolist() == [1, 2, 2]
    assert balanced_subset(y, 99, seed=0).tolist() == list(range(7))
    assert set(balanced_subset(y, 2, seed=0)) <= set(balanced_subset(y, 5, seed=0))
    with pytest.raises(ValueError, match="limit: expected at least 1 image, got 0"):
        balanced_subset(y, 0, seed=0)


def test_stratified_split_gives_each_class_its_share():
    y = np.repeat(np.arange(4), [2, 3, 10, 100])
    train, test = stratified_split(y, 0.2, seed=0)
    assert np.bincount(y[test]).tolist() == [1, 1, 2, 20]
    assert sorted([*train, *test]) == list(range(115))
    assert stratified_split(y, 0.2, seed=1)[1].tolist() != test.tolist()


@pytest.mark.parametrize("size", [32, (20, 24)])
def test_image_size_resizes_as_prediction_does(sample, tmp_path, size):
    resized = data.load(sample.name, image_size=size, limit_train=10)
    original = data.load(sample.name, limit_train=10)
    Image.fromarray(original.train.x[3, 0]).save(tmp_path / "shirt.png")
    image = read_image(tmp_path / "shirt.png", channels=1, size=size)
    np.testing.assert_array_equal(image, resized.train.x[3])
    assert image.shape[1:] == ((32, 32) if size == 32 else size)


def test_unknown_name_lists_the_known():
    with pytest.raises(DataError, match=r"fashion-mnist-sample, digits, .*folder:DIR, .*, got 'minst'"):
        data.load("minst")
    assert data.names()[0] == "fashion-mnist-sample"


def test_constant_images_have_a_usable_std(tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", np.full((2, 3, 3), 51, np.uint8))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", np.array([0, 1], np.uint8))
    dataset = data.load("mnist", data_dir=tmp_path)
    np.testing.assert_allclose(dataset.mean, [0.2])
    assert dataset.std.tolist() == [1.0]


def test_images_check_their_arrays():
    x, y = np.zeros((2, 1, 3, 3), np.uint8), np.zeros(2, np.int64)
    assert len(Images(x, y)) == 2
    with pytest.raises(ValueError, match=r"x: expected uint8 \(N,C,H,W\), got float64"):
        Images(x.astype(float), y)
    with pytest.raises(ValueError, match=r"y: expected int64 \(2,\), got int64 \(1,\)"):
        Images(x, y[:1])
    with pytest.raises(ValueError, match=r"paths: expected 2, one an image, got 1"):
        Images(x, y, (Path("a.png"),))
    files = (Path("a.png"), Path("b.png"))
    assert Images(x, y, files).subset(np.array([1])).paths == files[1:]


def test_write_idx_gives_the_same_bytes(tmp_path):
    array = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    for name in ("a", "b"):
        write_idx(tmp_path / name, array)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert gzip.decompress((tmp_path / "a").read_bytes())[:4] == b"\0\0\x08\x03"
    np.testing.assert_array_equal(read_idx(tmp_path / "a", 3), array)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]


# ---- batches -------------------------------------------------------------------------------------


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return Images(rng.integers(0, 256, (10, 3, 4, 5), dtype=np.uint8), np.arange(10))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 4e-7), ("float64", 1e-14)])
def test_normalize(images, dtype, tolerance):
    mean, std = np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.3, 1.0])
    got = normalize(images.x, mean, std, dtype)
    expected = (images.x / 255 - mean[:, None, None]) / std[:, None, None]
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_normalize_refuses_another_number_of_channels(images):
    with pytest.raises(ValueError, match=r"mean and std: expected shape \(3,\), got \(1,\) and \(1,\)"):
        normalize(images.x, [0.5], [0.5])


def batches_of(images, **options):
    return Batches(images, 4, mean=[0.5] * 3, std=[0.5] * 3, **options)


def test_batches_hold_each_image_once(images):
    batches = batches_of(images, seed=5)
    epoch = list(batches.epoch(2))
    assert len(batches) == len(epoch) == 3
    assert [len(y) for _, y in epoch] == [4, 4, 2]
    labels = np.concatenate([y for _, y in epoch])
    assert sorted(labels) == list(range(10))
    x = np.concatenate([x for x, _ in epoch])
    np.testing.assert_array_equal(x, normalize(images.x[labels], [0.5] * 3, [0.5] * 3))


@pytest.mark.parametrize(("size", "lengths"), [(3, [3, 3, 4]), (9, [10]), (1, [1] * 10), (20, [10])])
def test_a_single_image_that_is_left_joins_the_batch_before(images, size, lengths):
    batches = Batches(images, size, mean=[0.5] * 3, std=[0.5] * 3)
    epoch = list(batches.epoch(0))
    assert len(batches) == len(epoch)
    assert [len(y) for _, y in epoch] == lengths
    assert sorted(np.concatenate([y for _, y in epoch])) == list(range(10))
    assert [len(y) for _, y in batches.epoch(0, start=len(epoch) - 1)] == lengths[-1:]


def test_a_single_image_is_a_batch(images):
    batches = batches_of(images.subset(np.arange(1)))
    assert [len(y) for _, y in batches.epoch(0)] == [1]
    assert len(batches) == 1


def test_batch_order_is_a_function_of_seed_and_epoch(images):
    def order(seed, epoch, start=0):
        return [y.tolist() for _, y in batches_of(images, seed=seed).epoch(epoch, start)]

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)
    assert order(1, 1, start=2) == order(1, 1)[2:]
    assert order(1, 1, start=3) == []


def test_batches_without_shuffling_keep_the_order(images):
    epoch = list(batches_of(images, shuffle=False, dtype="float64").epoch(7))
    assert np.concatenate([y for _, y in epoch]).tolist() == list(range(10))
    assert epoch[0][0].dtype == np.float64


def test_batch_size_is_checked(images):
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        Batches(images, 0, mean=[0.5] * 3, std=[0.5] * 3)
