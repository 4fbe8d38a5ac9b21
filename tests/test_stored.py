"""Images that are too many for memory: decoded into a file, which is trusted, whole, and read in pieces."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import InProcess
from PIL import Image

from minicnn import data
from minicnn.data import DataError, UnusableImages, mapped, stored, workers
from minicnn.data.decode import Work, decode

H, W = 6, 8
WITH_PROCESSES = ("test_a_file_has_what_memory_has_and_is_made_once",)


def save(path: Path, seed: int, *, colour: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (H, W, 3) if colour else (H, W)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(path)


@pytest.fixture(autouse=True)
def _in_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.originalname not in WITH_PROCESSES:
        monkeypatch.setattr(workers, "ProcessPoolExecutor", InProcess)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Grey images of two classes: the last one is coloured, two are the same, and one is damaged."""
    for label, name in enumerate("ab"):
        for i in range(9):
            save(tmp_path / "pictures" / name / f"{i}.png", 10 * label + i, colour=label == 1 and i == 8)
    save(tmp_path / "pictures" / "b" / "again.png", 3)
    (tmp_path / "pictures" / "a" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path / "pictures"


def load(root: Path, **options: Any) -> data.Dataset:
    options = {"cache": root.parent / "cache", "in_memory": 0, "skip_bad": True, **options}
    return data.load(f"folder:{root}", validation=0.2, **options)


def folder_of(cache: Path) -> Path:
    """The one folder of decoded images."""
    (found,) = (path for path in cache.iterdir() if path.is_dir())
    return found


def every(images: data.Images) -> np.ndarray:
    return images.take(np.arange(len(images)))


def test_a_file_has_what_memory_has_and_is_made_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load(root, in_memory=1 << 20)
    first = load(root)
    monkeypatch.setattr(stored, "decode_into", lambda *_: pytest.fail("decoded again"))
    for got in (first, load(root), load(root, seed=5), load(root, seed=0)):
        assert mapped.mapping_of(got.train.x) is not None
        if got.train.paths != expected.train.paths:  # another seed: other parts of the same file
            continue
        for part in ("train", "validation", "test"):
            wanted, images = getattr(expected, part), getattr(got, part)
            np.testing.assert_array_equal(every(images), wanted.x)
            np.testing.assert_array_equal(np.concatenate(list(images.pieces(2))), wanted.x)
            np.testing.assert_array_equal(images.y, wanted.y)
            half = np.arange(0, len(images), 2)
            np.testing.assert_array_equal(every(images.subset(half)), wanted.x[half])
        assert got.summary == expected.summary
        assert got.notes == expected.notes
        assert got.record is not None
        assert expected.record is not None
        assert got.record.as_json() == expected.record.as_json()
        assert (got.fingerprint, got.one_shade) == (expected.fingerprint, expected.one_shade)
        np.testing.assert_array_equal([got.mean, got.std], [expected.mean, expected.std])
    batches = [
        data.Batches(one.train, 4, mean=one.mean, std=one.std, seed=1).epoch(2) for one in (expected, first)
    ]
    for (x, y), (other, labels) in zip(*batches, strict=True):
        np.testing.assert_array_equal(x, other)
        np.testing.assert_array_equal(y, labels)


def test_a_file_does_not_depend_on_which_image_is_first(root: Path) -> None:
    """Grey images alone come first, or the coloured one does."""
    grey, colour = ([(root / "a" / "0.png", 0), (root / "b" / "8.png", 1)][::step] for step in (1, -1))
    kept = []
    for listed in (grey, colour):
        decoded = decode(listed, Work(cache=root.parent / "cache", in_memory=0))
        assert decoded.store is not None
        kept.append((decoded.store.folder, decoded.x.tobytes(), decoded.x.shape[1]))
    assert kept[0] == kept[1]
    assert kept[0][2] == 3
    shutil.rmtree(kept[0][0])
    decoded = decode(colour, Work(cache=root.parent / "cache", in_memory=0))
    assert decoded.x.tobytes() == kept[0][1]


def test_bad_files_and_several_sizes_are_told_as_in_memory(root: Path) -> None:
    with pytest.raises(
        UnusableImages, match=r"torn\.png: cannot be read .*; --skip-bad leaves it out"
    ) as bad:
        load(root, skip_bad=False)
    assert list(bad.value.summary.bad) == [root / "a" / "torn.png"]
    Image.new("L", (W, H + 1)).save(root / "b" / "5.png")
    with pytest.raises(
        UnusableImages, match=rf"5\.png: expected {W}x{H} pixels .*there are {W}x{H}: "
    ) as error:
        load(root)
    assert error.value.summary.sizes[H + 1, W] == 1
    assert not [path for path in (root.parent / "cache").iterdir() if path.name.startswith(".")]


def test_what_has_changed_is_decoded_anew(root: Path) -> None:
    before = load(root)
    assert before.summary is not None
    save(root / "a" / "torn.png", 99)  # it was bad, and is whole now
    after = load(root)
    assert after.summary is not None
    assert (len(before.summary.bad), len(after.summary.bad)) == (1, 0)
    save(root / "a" / "0.png", 100)
    assert load(root).fingerprint != after.fingerprint
    assert load(root, image_size=4).train.shape == (3, 4, 4)


@pytest.mark.parametrize("file", ["pixels.npy", "digests.npy", "about.json"])
def test_a_torn_file_is_made_anew(file: str, root: Path) -> None:
    expected = load(root)
    torn = folder_of(root.parent / "cache") / file
    whole = torn.read_bytes()
    torn.write_bytes(whole[:-1])
    assert load(root).fingerprint == expected.fingerprint
    assert torn.read_bytes() == whole


def test_what_others_may_have_written_is_not_used(root: Path) -> None:
    load(root)
    cache = root.parent / "cache"
    kept = folder_of(cache)
    for place in (kept / "pixels.npy", kept / "about.json", kept, cache):
        mode = place.stat().st_mode
        place.chmod(mode | 0o020)
        with pytest.raises(
            DataError, match=rf"^other users can write to {place}; .*--cache DIR names another"
        ):
            load(root)
        place.chmod(mode)
    elsewhere = kept.rename(cache / "elsewhere")
    kept.symlink_to(elsewhere)
    with pytest.raises(DataError, match=r" is a symbolic link, which is not followed; "):
        load(root)
    kept.unlink()
    (elsewhere / "digests.npy").rename(elsewhere / "mine")
    (elsewhere / "digests.npy").symlink_to(elsewhere / "mine")
    elsewhere.rename(kept)
    with pytest.raises(DataError, match=r"digests\.npy is a symbolic link"):
        load(root)


def test_a_full_disk_is_one_line_and_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    words = (
        r"cache: cannot keep 20 decoded images there, 0\.0 MB: No space left on device; --cache DIR names"
    )
    with pytest.raises(DataError, match=words):
        load(root)
    assert [path.suffix for path in (root.parent / "cache").iterdir()] == [".lock"]


def test_without_a_place_of_ones_own_a_remedy_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICNN_CACHE", "relative")
    with pytest.raises(DataError, match=r"^MINICNN_CACHE: expected an absolute path, .*--cache DIR names"):
        load(root, cache=None)
    monkeypatch.setenv("MINICNN_CACHE", str(root.parent / "mine"))
    load(root, cache=None)
    assert folder_of(root.parent / "mine" / "images").stat().st_mode & 0o777 == 0o700


def test_ctrl_c_waits_while_processes_begin() -> None:
    """Although another thread hears it: Python calls the handler in the main one."""
    done, reached = threading.Event(), []
    another = threading.Thread(target=done.wait)
    another.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            _interrupted(reached)
    finally:
        done.set()
        another.join()
    assert reached


def _interrupted(reached: list[bool]) -> None:
    with workers._interrupts_held():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        reached.append(True)


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """In a process group of its own, since a terminal's Ctrl-C reaches the processes that decode too."""
    for number in range(400):
        save(tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png", number)
    flags = ["--dataset", f"folder:{tmp_path / 'pictures'}", "--cache", str(tmp_path / "cache")]
    command = [sys.executable, "-m", "minicnn.train", *flags, "--cache-above", "0", "--backend", "numpy"]
    command += [
        "--image-size",
        "700",
        "--model",
        "vgg_small",
        "--batch-size",
        "1",
    ]  # slow enough to interrupt
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )
    while not list((tmp_path / "cache").glob(".*/pixels.npy")):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert told.splitlines()[-1] == "interrupted"
    assert "Traceback" not in told
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(), reason="the system does not tell what is resident"
)
def test_resident_memory_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 29 MB of images, an epoch keeps no more than 2 MB and what is around the rows of a batch."""
    x = np.random.default_rng(0).integers(0, 256, (240, 200, 200, 3), np.uint8)
    np.savez(tmp_path / "many.npz", x=x, y=np.arange(240) % 2)
    monkeypatch.setattr(mapped, "KEPT", 2_000_000)
    dataset = data.load(f"npz:{tmp_path / 'many.npz'}", cache=tmp_path / "cache", in_memory=10_000_000)
    batches = data.Batches(dataset.train, 4, mean=dataset.mean, std=dataset.std)
    most = max(resident("pixels.npy") for _ in batches.epoch(0))
    around = 2 << 20  # the system may map as much around a page that is read
    assert 0 < most < mapped.KEPT + 4 * 2 * around < len(dataset.train) * 120_000


def resident(name: str) -> int:
    """Bytes of a mapped file of this name that are in memory now."""
    told = Path("/proc/self/smaps").read_text()
    return 1024 * sum(
        int(size) for size in re.findall(rf"{re.escape(name)}\n(?:.*\n)*?Rss: +(\d+) kB", told)
    )


def test_what_is_read_of_a_mapped_file_is_right_across_pages(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (50, 3, 40, 41), np.uint8)
    (tmp_path / "x").write_bytes(bytes(77) + values.tobytes())
    with (tmp_path / "x").open("rb") as file:
        x = mapped.map_array(file.fileno(), 77, values.shape)
        with pytest.raises(ValueError, match="too short"):
            mapped.map_array(file.fileno(), 78, values.shape)
    images = data.Images(x, np.zeros(30, np.int64), rows=np.arange(49, 19, -1))
    order = np.random.default_rng(1).permutation(30)
    np.testing.assert_array_equal(images.take(order), values[49 - order])
    assert not x.flags.writeable
    with pytest.raises(ValueError, match=r"rows: expected int64 \(N,\)"):
        data.Images(x, np.zeros(1, np.int64), rows=np.zeros(1, np.int32))
