"""Checkpoint files: what is written comes back, and what is not a good checkpoint is refused by name."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from minicnn import checkpoint, files
from minicnn.app.run_folder import RunFolder
from minicnn.checkpoint import Checkpoint, CheckpointError, check_tensors


@pytest.fixture
def example() -> Checkpoint:
    rng = np.random.default_rng(3)
    return Checkpoint(
        config={"model": "lenet5", "lr": 0.1, "data_dir": None},
        class_names=["cat", "Straße"],
        image_shape=(3, 28, 20),
        mean=[0.1 + 0.2, 1 / 3, 0.5],
        std=[1.0, 2.0, 3.0],
        fingerprint="abc",
        epoch=1,
        batch=5,
        sums={"loss": 0.1 + 0.7, "correct": 3, "images": 640, "seconds": 0.7},
        history=[
            {
                "epoch": 1,
                "train_loss": 1 / 7,
                "train_accuracy": 1 / 3,
                "test_loss": 0.3,
                "test_accuracy": 0.5,
                "lr": 0.1,
                "seconds": 0.7,
                "images_per_second": 900.0,
            }
        ],
        best_accuracy=0.5,
        optimizer_steps=163,
        generators={"dropout": np.random.PCG64(2**127 + 1).state},
        model={
            "conv1.weight": rng.standard_normal((2, 3, 5, 5)).astype(np.float32),
            "norm.num_batches_tracked": np.array(7, np.int64),
            "transposed": rng.standard_normal((4, 6)).T,
        },
        optimizer={"exp_avg.conv1.weight": rng.standard_normal((2, 3, 5, 5)).astype(np.float32)},
    )


def test_everything_comes_back_bit_by_bit(example: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, example)
    got = checkpoint.load(path)
    for group in ("model", "optimizer"):
        expected, there = getattr(example, group), getattr(got, group)
        assert expected.keys() == there.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(there[name], array, strict=True)
    plain = {"model": {}, "optimizer": {}}
    assert asdict(replace(got, **plain)) == asdict(replace(example, **plain))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_every_truncation_is_an_error_that_names_the_file(example: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, example)
    whole = path.read_bytes()
    for length in {0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"c\.safetensors is torn, or not a safetensors file"):
            checkpoint.load(path)


@pytest.mark.parametrize("where", [0.3, 0.6, 0.99])
def test_a_flipped_bit_is_an_error(example: Checkpoint, tmp_path: Path, where: float) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, example)
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"c\.safetensors"):
        checkpoint.load(path)


def test_foreign_files_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    with pytest.raises(CheckpointError, match=r"c\.safetensors: there is no such file"):
        checkpoint.load(path)
    with pytest.raises(CheckpointError, match="is a folder: expected a file"):
        checkpoint.load(tmp_path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        checkpoint.load(path)
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="is a safetensors file, but not a checkpoint of minicnn"):
        checkpoint.load(path)
    save_file({"a": np.zeros(3)}, path, {"minicnn": "{}", "minicnn_format": "99"})
    with pytest.raises(CheckpointError, match="expected checkpoint format 1, got 99"):
        checkpoint.load(path)
    crc = checkpoint._checksum({"a": np.zeros(3)}, "{}")
    save_file({"a": np.zeros(3)}, path, {"minicnn": "{}", "minicnn_format": "1", "minicnn_crc32": crc})
    with pytest.raises(CheckpointError, match=r"expected metadata \[.*'class_names'.*\], got \[\]"):
        checkpoint.load(path)


def test_types_that_numpy_lacks_are_told(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}'
    path = tmp_path / "b.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError, match=r"b\.safetensors: expected tensors of a type that NumPy has"):
        checkpoint.read_tensors(path)


@pytest.mark.parametrize(
    ("got", "message"),
    [
        ({}, "expected tensor w, which is not there"),
        ({"w": np.zeros((2, 4), np.float32)}, r"w: expected float32 \(2, 3\), got float32 \(2, 4\)"),
        ({"w": np.zeros((2, 3))}, r"w: expected float32 \(2, 3\), got float64 \(2, 3\)"),
        ({"w": np.zeros((2, 3), np.float32), "v": np.zeros(1)}, "unexpected tensor v"),
    ],
)
def test_tensors_of_another_model_are_refused(got: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(CheckpointError, match=f"file: {message}"):
        check_tensors("file", got, {"w": np.ones((2, 3), np.float32)})


def test_disk_full_keeps_the_old_file(
    example: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, example)
    before = path.read_bytes()

    def no_space(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match=r"cannot write .*c\.safetensors: No space left on device"):
        checkpoint.save(path, replace(example, batch=6))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cannot write .*gone/a\.json: No such file or directory"):
        files.write_json(tmp_path / "gone" / "a.json", {})


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    files.write_json_lines(path, [{"a": 0.1}, {"a": 2}])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"a": 0.1}, {"a": 2}]


def test_a_folder_is_locked_once(tmp_path: Path) -> None:
    with RunFolder(tmp_path).locked():
        with pytest.raises(OSError, match="is in use by another run"), RunFolder(tmp_path).locked():
            pass
        assert (tmp_path / ".lock").exists()
    with RunFolder(tmp_path).locked():
        assert (tmp_path / ".lock").exists()
