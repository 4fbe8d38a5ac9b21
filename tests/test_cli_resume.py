"""A run that is interrupted or killed, anywhere, ends as if it had not been."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minicnn import checkpoint, data, files
from minicnn.app import report, training
from minicnn.app.command_line import make_console
from minicnn.app.commands import train
from minicnn.app.experiment import Experiment
from minicnn.app.run_folder import RunFolder
from minicnn.app.settings import Config
from scripts import fail_resume, kill_resume

SMALL = [
    "--model", "lenet5", "--limit-train", "256", "--limit-test", "64", "--batch-size", "16",
    "--epochs", "3", "--backend", "numpy", "--threads", "1", "--save-every", "0",
]  # fmt: skip


def start(*arguments: object) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "minicnn.train", *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def history(folder: Path) -> list[str]:
    return (folder / "metrics.jsonl").read_text().splitlines()


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


def test_killed_at_random_moments(tmp_path: Path) -> None:
    result = kill_resume.run(range(3), tmp_path)
    assert result["differences"] == {}
    assert result["kills"] >= 3
    assert len(result["killed"]) >= 2


def test_a_run_that_ended_otherwise_is_told(reference: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(reference, other)
    assert kill_resume.differences(other, reference) == []
    (other / ".best.safetensors.tmp").touch()
    saved = checkpoint.load(other / "checkpoint.safetensors")
    saved.model["fc3.bias"] = np.nextafter(saved.model["fc3.bias"], 1, dtype=np.float32)
    saved.history[0]["validation_loss"] += 1e-9
    checkpoint.save(other / "checkpoint.safetensors", saved)
    assert kill_resume.differences(other, reference) == [
        ".best.safetensors.tmp is in one of them only",
        "checkpoint.safetensors: history differs",
        "checkpoint.safetensors: model.fc3.bias differs",
    ]


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
    assert kill_resume.differences(out, reference) == []


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture
def go(tmp_path: Path) -> Callable[[str], Path]:
    """Takes the run in the folder of this name, of 2 batches an epoch, to its end; returns the folder."""
    flags = vars(train.parse([*SMALL, "--batch-size", "64", "--epochs", "2"]))
    dataset = data.load("fashion-mnist-sample", limit_train=128, limit_test=32, validation=0.1)

    def run(name: str) -> Path:
        folder, experiment = RunFolder(tmp_path / name), Experiment(Config.resolve(flags), dataset)
        folder.path.mkdir(exist_ok=True)
        if folder.holds_run():
            training.resume(folder, experiment, make_console())
        else:
            training.begin(folder, experiment, overwrite=False)
        training.train(folder, experiment, make_console())
        return folder.path

    return run


def test_a_kill_between_any_two_writes_heals(
    go: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
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
    whole = go("whole")
    moments = len(written)
    assert {"best.safetensors", "checkpoint.safetensors", "metrics.jsonl"} <= set(written)

    for moment in range(moments):
        written.clear()
        dies_at = moment
        with pytest.raises(Killed):
            go(str(moment))
        dies_at = None
        assert kill_resume.differences(go(str(moment)), whole) == []


@pytest.mark.parametrize("kind", fail_resume.CALLS)
def test_a_call_that_fails_loses_nothing(go: Callable[[str], Path], kind: str) -> None:
    """The short form of scripts/fail_resume.py: the nth open, write, sync or rename of a run fails."""
    with fail_resume.Failing().installed() as counts:
        whole = go("whole")
    assert counts[kind] > 15
    for number in range(0, counts[kind], 7):
        name = str(number)
        failing = fail_resume.Failing(kind, number)
        with failing.installed(), pytest.raises(OSError, match=r"cannot write .*: No space left on device"):
            go(name)
        assert not list((whole.parent / name).glob(".*.tmp"))
        file = whole.parent / name / "checkpoint.safetensors"
        assert not file.exists() or checkpoint.load(file).optimizer_steps <= 4
        assert kill_resume.differences(go(name), whole) == []


def test_constant_schedule_may_go_on_for_more_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "finish", lambda *_: None)  # the plots take longer than the training
    settings = [*SMALL, "--schedule", "constant", "--limit-train", "64"]
    train.main([*settings, "--epochs", "1", "--out", str(tmp_path / "two")])
    train.main(["--resume", "--epochs", "3", "--out", str(tmp_path / "two")])
    train.main([*settings, "--out", str(tmp_path / "one")])
    for folder in ("one", "two"):  # the best may be from the first epoch, of three or of one
        (tmp_path / folder / "best.safetensors").unlink()
    assert kill_resume.differences(tmp_path / "two", tmp_path / "one") == []


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
