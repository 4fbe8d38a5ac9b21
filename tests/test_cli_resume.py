"""A run that is interrupted or killed, anywhere, ends as if it had not been."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minicnn import checkpoint, cli, data, files, train
from minicnn.config import Config
from minicnn.experiment import Experiment
from minicnn.run import Run

SMALL = [
    "--model", "lenet5", "--limit-train", "256", "--limit-test", "64", "--batch-size", "16",
    "--epochs", "3", "--backend", "numpy", "--threads", "1", "--save-every", "0",
]  # fmt: skip
TIMES = ("seconds", "images_per_second")


def start(*arguments: object) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "minicnn.train", *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def history(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def assert_same_run(folder: Path, reference: Path) -> None:
    """Bit-identical tensors, and the same metrics but for the times."""
    for name in ("checkpoint.safetensors", "best.safetensors"):
        got, expected = checkpoint.load(folder / name), checkpoint.load(reference / name)
        for group in ("model", "optimizer"):
            there, here = getattr(expected, group), getattr(got, group)
            assert here.keys() == there.keys()
            for key, array in there.items():
                np.testing.assert_array_equal(here[key], array, strict=True)
        assert got.optimizer_steps == expected.optimizer_steps
    assert history(folder) == history(reference)


def wait_for_checkpoint(process: subprocess.Popen[str], file: Path, after: int) -> None:
    """Until the process has written the file anew (it was last written at ``after`` ns) or has ended."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if file.exists() and file.stat().st_mtime_ns > after:
            return
        time.sleep(0.002)
    assert process.poll() == 0, process.communicate()[1]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run."""
    out = tmp_path_factory.mktemp("reference") / "run"
    process = start(*SMALL, "--out", out)
    assert process.communicate(timeout=120)[1] == ""
    assert len(history(out)) == 3
    return out


def test_killed_again_and_again(reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    file = out / "checkpoint.safetensors"
    kills = 0
    for delay in (0.0, 0.03, 0.08, 0.2):
        before = file.stat().st_mtime_ns if file.exists() else 0
        process = start(*SMALL, "--out", out, "--resume")
        wait_for_checkpoint(process, file, before)
        time.sleep(delay)
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        checkpoint.load(file)
    assert kills >= 3
    ended = start("--resume", "--out", out)
    assert ended.communicate(timeout=120)[1] == ""
    assert ended.returncode == 0
    assert_same_run(out, reference)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(number: signal.Signals, reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(*SMALL, "--out", out)
    file = out / "checkpoint.safetensors"
    wait_for_checkpoint(process, file, 0)
    while checkpoint.load(file).optimizer_steps == 0:  # the first one is written before training begins
        time.sleep(0.002)
    process.send_signal(number)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted in epoch " in message
    assert f"python -m minicnn.train --resume --out {out}" in message
    assert "Traceback" not in message
    saved = checkpoint.load(out / "checkpoint.safetensors")
    assert 0 < saved.epoch * 16 + saved.batch < 48
    train.main(["--resume", "--out", str(out)])
    assert_same_run(out, reference)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture
def begin(tmp_path: Path) -> Callable[[str], Run]:
    """Makes a run of 2 batches an epoch, in a folder of this name."""
    flags = vars(train.parse([*SMALL, "--batch-size", "64", "--epochs", "2"]))
    dataset = data.load("fashion-mnist-sample", limit_train=128, limit_test=32)

    def make(name: str) -> Run:
        (tmp_path / name).mkdir(exist_ok=True)
        return Run(tmp_path / name, Experiment(Config.resolve(flags), dataset), cli.make_console())

    return make


def go(run: Run) -> None:
    """Start the run, or go on with it, to the end."""
    if (run.folder / "checkpoint.safetensors").exists():
        run.resume()
    else:
        run.start(overwrite=False)
    run.train()


def test_a_kill_between_any_two_writes_heals(
    begin: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file that a run writes is a moment to die at: before it, which is after the one before."""
    written: list[str] = []
    dies_at: int | None = None
    write = files.write_atomically

    def write_or_die(path: Path, content: bytes) -> None:
        if len(written) == dies_at:
            raise Killed
        written.append(Path(path).name)
        write(path, content)

    for module in (files, checkpoint):
        monkeypatch.setattr(module, "write_atomically", write_or_die)
    whole = begin("whole")
    go(whole)
    moments = len(written)
    assert {"best.safetensors", "checkpoint.safetensors", "metrics.jsonl"} <= set(written)

    for moment in range(moments):
        written.clear()
        dies_at = moment
        with pytest.raises(Killed):
            go(begin(str(moment)))
        dies_at = None
        again = begin(str(moment))
        go(again)
        assert_same_run(again.folder, whole.folder)


def test_constant_schedule_may_go_on_for_more_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "finish", lambda _: None)  # the plots take longer than the training
    settings = [*SMALL, "--schedule", "constant", "--limit-train", "64"]
    train.main([*settings, "--epochs", "1", "--out", str(tmp_path / "two")])
    train.main(["--resume", "--epochs", "3", "--out", str(tmp_path / "two")])
    train.main([*settings, "--out", str(tmp_path / "one")])
    assert_same_run(tmp_path / "two", tmp_path / "one")


def test_resume_where_nothing_began(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.main([*SMALL, "--epochs", "1", "--limit-train", "32", "--resume", "--out", str(tmp_path / "new")])
    assert "holds no checkpoint yet: starting from the beginning" in capsys.readouterr().out
    assert len(history(tmp_path / "new")) == 1


def test_other_data_are_refused(reference: Path, tmp_path: Path) -> None:
    saved = checkpoint.load(reference / "checkpoint.safetensors")
    saved.fingerprint = "other"
    checkpoint.save(tmp_path / "checkpoint.safetensors", saved)
    with pytest.raises(checkpoint.CheckpointError, match="the data are not those that the run began with"):
        train.main(["--resume", "--out", str(tmp_path)])
