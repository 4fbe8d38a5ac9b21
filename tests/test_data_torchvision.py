"""torchvision's datasets by name: the same images and labels as torchvision's, or one clear error."""

import gzip
import hashlib
import importlib
import io
import pickle
import struct
import sys
import urllib.error

import numpy as np
import pytest

from minicnn import data
from minicnn.data import DataError, cifar, svhn
from minicnn.data.torchvision_sets import SOURCES

IDX_SETS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST", "emnist": "EMNIST"}
PREFIXES = dict.fromkeys(IDX_SETS, ("train", "t10k")) | {
    "emnist": ("emnist-balanced-train", "emnist-balanced-test")
}


@pytest.fixture(scope="module")
def tv():
    return pytest.importorskip("torchvision.datasets", reason="torchvision is not installed")


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


# ---- IDX sets ------------------------------------------------------------------------


def write_idx_set(folder, prefixes, suffix=""):
    """Square images, as torchvision expects, of 28x28."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    pack = gzip.compress if suffix else bytes
    for prefix, count in zip(prefixes, (6, 4), strict=True):
        x = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte{suffix}").write_bytes(pack(idx_bytes(x)))
        (folder / f"{prefix}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(np.arange(count))))


@pytest.mark.parametrize("name", IDX_SETS)
def test_idx_sets_agree_with_torchvision(tmp_path, tv, name):
    write_idx_set(tmp_path / IDX_SETS[name] / "raw", PREFIXES[name])
    ours = data.load(name, data_dir=tmp_path, download=False)
    options = {"split": "balanced"} if name == "emnist" else {}
    for train, part in ((True, ours.train), (False, ours.test)):
        theirs = getattr(tv, IDX_SETS[name])(tmp_path, train=train, **options)
        pixels = theirs.data.numpy()
        upright = pixels.transpose(0, 2, 1) if name == "emnist" else pixels
        np.testing.assert_array_equal(part.x[:, 0], upright)
        np.testing.assert_array_equal(part.y, theirs.targets.numpy())
        if name != "mnist":  # where torchvision's names repeat themselves: "0 - zero"
            assert ours.class_names == list(theirs.classes)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_bare_idx_files_in_data_dir(tmp_path, suffix):
    write_idx_set(tmp_path, ("train", "t10k"), suffix)
    dataset = data.load("kmnist", data_dir=tmp_path, download=False)
    assert (len(dataset.train), len(dataset.test)) == (6, 4)


@pytest.mark.parametrize(
    "spelling",
    [
        lambda name: name.replace("-idx", ".idx"),
        lambda name: name.replace("-idx", ".idx") + ".gz",
        lambda name: name.replace("-", "_"),
        lambda name: name.upper(),
        lambda name: name.replace("t10k", "test"),
        lambda name: f"{name}/{name}",
        lambda name: f"{name.replace('-idx', '.idx')}/{name}",
        lambda name: f"../{name}",
        lambda name: f"../../mnist/{name}",
    ],
    ids=["dots", "dots-gz", "underscores", "capitals", "test", "folder", "folder-dots", "MNIST", "mnist"],
)
def test_usual_names_of_idx_files_are_found_before_a_download(tmp_path, monkeypatch, spelling):
    replace_torchvision(monkeypatch, lambda *_: pytest.fail("a download was tried"))
    raw = tmp_path / "MNIST" / "raw"
    write_idx_set(raw, ("train", "t10k"))
    for file in list(raw.iterdir()):
        content = file.read_bytes()
        file.unlink()
        path = raw / spelling(file.name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    dataset = data.load("mnist", data_dir=tmp_path)
    assert (len(dataset.train), dataset.test.y.tolist()) == (6, [0, 1, 2, 3])


def test_the_exact_name_wins_over_another_spelling(tmp_path):
    write_idx_set(tmp_path, ("train", "t10k"))
    (tmp_path / "T10K-labels.idx1-ubyte").write_bytes(b"something else")
    assert data.load("mnist", data_dir=tmp_path, download=False).test.y.tolist() == [0, 1, 2, 3]


def test_a_link_to_its_own_folder_is_no_file(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").symlink_to(".")
    with pytest.raises(DataError, match="mnist: not found in"):
        data.load("mnist", data_dir=tmp_path, download=False)


def test_missing_files_are_listed(tmp_path):
    write_idx_set(tmp_path, ("train", "t10k"))
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    words = (
        r"mnist: not found in .* has the other files, but not t10k-labels-idx1-ubyte; .*put train-images-"
    )
    with pytest.raises(DataError, match=words + "idx3-ubyte, .*MNIST/raw"):
        data.load("mnist", data_dir=tmp_path, download=False)


def test_missing_data_dir(tmp_path):
    with pytest.raises(
        DataError, match=r"cifar10: not found in .*nowhere; to use it offline, put data_batch_1"
    ):
        data.load("cifar10", data_dir=tmp_path / "nowhere", download=False)


def test_without_torchvision_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(DataError, match=r"svhn: .*pip install torchvision; .* put train_32x32\.mat"):
        data.load("svhn", data_dir=tmp_path)


class FakeDatasets:
    """Stands for torchvision.datasets: what a download does, without a network."""

    def __init__(self, action):
        self.action = action

    def __getattr__(self, name):
        return lambda root, download, **options: self.action(name, root, download, options)


def replace_torchvision(monkeypatch, action):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", FakeDatasets(action))
    assert isinstance(importlib.import_module("torchvision.datasets"), FakeDatasets)


def test_failed_download_says_what_to_do(tmp_path, monkeypatch):
    def fail(*_):
        raise urllib.error.URLError("no network")

    replace_torchvision(monkeypatch, fail)
    with pytest.raises(
        DataError, match=r"mnist: cannot be downloaded \(.*no network.*\); to use it offline, put"
    ):
        data.load("mnist", data_dir=tmp_path)


def test_download_is_read_afterwards(tmp_path, monkeypatch):
    calls = []

    def download(name, root, download, options):
        calls.append((name, root, download, options))
        write_idx_set(tmp_path / "EMNIST" / "raw", PREFIXES["emnist"])

    replace_torchvision(monkeypatch, download)
    for _ in range(2):
        assert len(data.load("emnist", data_dir=tmp_path).train) == 6
    assert calls == [("EMNIST", str(tmp_path), True, {"split": "balanced"})]


def test_download_that_leaves_files_out(tmp_path, monkeypatch):
    replace_torchvision(monkeypatch, lambda *_: None)
    with pytest.raises(DataError, match=r"mnist: the download left files out"):
        data.load("mnist", data_dir=tmp_path)


# ---- CIFAR -----------------------------------------------------------------------------------------


def python2_pickle(entries):
    """The bytes that Python 2 wrote CIFAR's files with: byte strings, and arrays of old NumPy."""

    def text(value):
        return b"T" + struct.pack("<i", len(value)) + value

    def integer(value):
        return b"J" + struct.pack("<i", value)

    def item(value):
        if isinstance(value, np.ndarray):
            shape = b"(" + b"".join(integer(size) for size in value.shape) + b"t"
            dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\0K\1\x87R(K\3" + text(b"|") + b"NNN"
            dtype += integer(-1) * 2 + b"K\0tb"
            empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + integer(0) + b"\x85"
            return (
                empty + text(b"b") + b"\x87R(K\1" + shape + dtype + b"\x89" + text(value.tobytes()) + b"tb"
            )
        return b"](" + b"".join(integer(x) if isinstance(x, int) else text(x) for x in value) + b"e"

    return b"\x80\2}(" + b"".join(text(key) + item(value) for key, value in entries.items()) + b"u."


CIFAR = {"cifar10": ("CIFAR10", cifar.CIFAR10), "cifar100": ("CIFAR100", cifar.CIFAR100)}


def write_cifar(root, layout, monkeypatch, **changed):
    """Small files in the layout of CIFAR, with their own MD5 sums in place of the published ones."""
    folder = root / layout.folder
    folder.mkdir()
    rng = np.random.default_rng(0)
    for files in (layout.train, layout.test, layout.meta):
        for file in files:
            batch = {
                b"data": rng.integers(0, 256, (3, 3072), dtype=np.uint8),
                layout.labels_key.encode(): rng.integers(0, 5, 3).tolist(),
            }
            meta = {layout.names_key.encode(): [b"a", b"b", b"c", b"d", b"e"]}
            content = changed.get(file) or python2_pickle(meta if files is layout.meta else batch)
            (folder / file).write_bytes(content)
            monkeypatch.setitem(files, file, hashlib.md5(content, usedforsecurity=False).hexdigest())


@pytest.mark.filterwarnings("ignore:dtype\\(\\)")  # torchvision reads what old NumPy wrote
@pytest.mark.parametrize("name", CIFAR)
def test_cifar_agrees_with_torchvision(tmp_path, tv, monkeypatch, name):
    torchvision_class, layout = CIFAR[name]
    write_cifar(tmp_path, layout, monkeypatch)
    theirs_class = getattr(tv, torchvision_class)
    monkeypatch.setattr(theirs_class, "train_list", list(layout.train.items()))
    monkeypatch.setattr(theirs_class, "test_list", list(layout.test.items()))
    monkeypatch.setattr(theirs_class, "meta", theirs_class.meta | {"md5": next(iter(layout.meta.values()))})
    ours = data.load(name, data_dir=tmp_path, download=False)
    for train, part in ((True, ours.train), (False, ours.test)):
        theirs = theirs_class(tmp_path, train=train)
        np.testing.assert_array_equal(part.x, theirs.data.transpose(0, 3, 1, 2))
        assert part.y.tolist() == theirs.targets
        assert ours.class_names == theirs.classes


def test_cifar_md5_sums_are_torchvisions(tv):
    for torchvision_class, layout in CIFAR.values():
        theirs = getattr(tv, torchvision_class)
        assert [list(item) for item in layout.train.items()] == theirs.train_list
        assert [list(item) for item in layout.test.items()] == theirs.test_list
        assert layout.meta == {theirs.meta["filename"]: theirs.meta["md5"]}
        assert (layout.folder, layout.names_key) == (theirs.base_folder, theirs.meta["key"])
    assert {split[1]: split[2] for split in tv.SVHN.split_list.values() if split[1] in svhn.MD5} == svhn.MD5


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_other_content_than_the_published_is_refused(tmp_path, name):
    source = SOURCES[name]
    folder = tmp_path / source.folder
    folder.mkdir(exist_ok=True)
    for file in source.files:
        (folder / file).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(
        DataError, match=r": truncated or corrupt: expected MD5 .* delete it and get it again"
    ):
        data.load(name, data_dir=tmp_path, download=False)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system is not admitted"),
        (pickle.dumps(np.zeros(3), 3), "expected arrays of dtype u1, got f8"),
        (pickle.dumps({"data": 1}, 3), "KeyError"),
        (pickle.dumps([], 3), "expected a pickled dict"),
        (b"\x80\3", "EOFError"),
        (python2_pickle({b"data": [1, 300], b"labels": [0]}), "expected uint8 images"),
        (python2_pickle({b"data": np.zeros((1, 3000), np.uint8), b"labels": [0]}), "expected uint8 images"),
        (python2_pickle({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}), "expected 2 labels"),
        (python2_pickle({b"data": np.zeros((1, 3072), np.uint8), b"labels": [5]}), "from 0 to 4, got 5"),
    ],
)
def test_bad_cifar_batch_is_named(tmp_path, monkeypatch, content, words):
    write_cifar(tmp_path, cifar.CIFAR10, monkeypatch, data_batch_2=content)
    with pytest.raises(DataError, match=rf"data_batch_2: .*{words}"):
        data.load("cifar10", data_dir=tmp_path, download=False)


def test_arrays_of_new_numpy_are_admitted():
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    pickled = io.BytesIO(pickle.dumps({"a": array}, 4))
    np.testing.assert_array_equal(cifar.RestrictedUnpickler(pickled).load()["a"], array)


# ---- SVHN ------------------------------------------------------------------------------------------


def write_svhn(folder, monkeypatch, **changed):
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    for file, count in zip(svhn.MD5, (5, 3), strict=True):
        entries = {
            "X": rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8),
            "y": np.arange(10, 10 - count, -1, dtype=np.uint8)[:, None],
        }
        savemat(folder / file, entries | changed)
        md5 = hashlib.md5((folder / file).read_bytes(), usedforsecurity=False).hexdigest()
        monkeypatch.setitem(svhn.MD5, file, md5)


def test_svhn_agrees_with_torchvision(tmp_path, tv, monkeypatch):
    write_svhn(tmp_path, monkeypatch)
    ours = data.load("svhn", data_dir=tmp_path, download=False)
    splits = {k: [url, file, svhn.MD5.get(file)] for k, (url, file, _) in tv.SVHN.split_list.items()}
    monkeypatch.setattr(tv.SVHN, "split_list", splits)
    for split, part in (("train", ours.train), ("test", ours.test)):
        theirs = tv.SVHN(tmp_path, split=split)
        np.testing.assert_array_equal(part.x, theirs.data)
        np.testing.assert_array_equal(part.y, theirs.labels)
    assert ours.train.y.tolist() == [0, 9, 8, 7, 6]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"X": np.zeros((32, 32, 3, 5))}, r"expected X uint8 \(H, W, 3, 5\), got float64"),
        ({"y": np.zeros((4, 1), np.uint8)}, r"expected X uint8 \(H, W, 3, 4\), got uint8 \(32, 32, 3, 5\)"),
        ({"y": np.full((5, 1), 11, np.uint8)}, "expected labels from 0 to 9, got 11"),
        ({"y": "text"}, "expected a MATLAB file with X and y"),
    ],
)
def test_bad_svhn_is_named(tmp_path, monkeypatch, changed, words):
    write_svhn(tmp_path, monkeypatch, **changed)
    with pytest.raises(DataError, match=rf"train_32x32\.mat: {words}"):
        data.load("svhn", data_dir=tmp_path, download=False)
