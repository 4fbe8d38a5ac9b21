"""What goes wrong with disks and files: one clear line, exit status 2, and nothing that was is lost."""

from __future__ import annotations

import gc
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minicnn import checkpoint, train
from minicnn.app.command_line import exit_with
from minicnn.checkpoint import Checkpoint
from minicnn.saved_model import load_model
from scripts import fail_resume, fuzz_readers, kill_resume
from scripts.kill_resume import SETTINGS

ROOT = Path(__file__).parent.parent
TRAIN = [sys.executable, "-m", "minicnn.train", *SETTINGS]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def message_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed command printed."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("error: ").rstrip()


def resume_fails(folder: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """The message of `train --resume`, which must leave all files as they are."""
    before = contents(folder)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        exit_with(lambda: train.main(["--resume", "--out", str(folder), *flags]))
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert contents(folder) == before
    return line.removeprefix("error: ")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    kill_resume.end(kill_resume.start(out))
    return out


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed in its second epoch."""
    out = tmp_path_factory.mktemp("killed") / "run"
    process = kill_resume.start(out)
    file = out / "checkpoint.safetensors"
    while process.is_alive() and not (file.exists() and checkpoint.load(file).optimizer_steps >= 5):
        time.sleep(0.002)
    process.kill()
    process.join()
    for path in out.glob(".*.tmp"):
        path.unlink()
    assert checkpoint.load(file).epoch < kill_resume.EPOCHS, "the run ended before it could be killed"
    return out


@pytest.fixture
def half_done(killed: Path, tmp_path: Path) -> Path:
    """A copy of the killed run's folder."""
    return shutil.copytree(killed, tmp_path / "half")


# ---- disks and folders -----------------------------------------------------------------------------------


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))  # a checkpoint with state has 0.75 MB


def test_a_file_that_may_not_grow(half_done: Path) -> None:
    """What a quota does; a checkpoint is written in part, and the one before it stays."""
    before = contents(half_done)
    line = [*TRAIN, "--resume", "--out", str(half_done)]
    done = subprocess.run(
        line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120, preexec_fn=limit_files
    )
    assert message_of(done) == f"cannot write {half_done / 'checkpoint.safetensors'}: File too large"
    assert contents(half_done) == before


def in_own_mounts(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run shell lines that may mount; the mounts are nobody else's, and end with them."""
    line = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-ec",
        script,
        "sh",
        *map(str, arguments),
    ]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=180)


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    """A folder to mount on."""
    place = tmp_path / "mount"
    place.mkdir()
    if not shutil.which("unshare") or in_own_mounts('mount -t tmpfs none "$1"', place).returncode:
        pytest.skip("this machine lets nobody mount in a namespace of their own")
    return place


def test_a_full_disk(half_done: Path, mounts: Path) -> None:
    """A disk with room for all files but not for the next checkpoint beside the last."""
    kib = sum(-(-p.stat().st_size // 4096) * 4 for p in half_done.iterdir()) + 100
    script = """
        mount -t tmpfs -o size="$2"k none "$1"
        cp "$3"/* "$1"
        shift 3
        "$@" && exit 9 || status=$?
        cp "$OUT"/* "$OUT"/../after
        test -z "$(ls -A "$OUT" | grep '[.]tmp$')" || exit 8
        exit $status
    """
    (mounts.parent / "after").mkdir()
    line = [*TRAIN, "--resume", "--out", mounts]
    done = in_own_mounts(f"OUT='{mounts}'\n{script}", mounts, kib, half_done, *line)
    assert message_of(done) == f"cannot write {mounts / 'checkpoint.safetensors'}: No space left on device"
    after = mounts.parent / "after"
    visible = {name: c for name, c in contents(half_done).items() if not name.startswith(".")}
    assert contents(after) == visible


def test_a_read_only_folder(half_done: Path, mounts: Path) -> None:
    before = contents(half_done)
    script = 'mount --bind "$2" "$1"; mount -o remount,bind,ro "$1"; shift 2; exec "$@"'
    line = [*TRAIN, "--resume", "--out", mounts]
    message = message_of(in_own_mounts(script, mounts, half_done, *line))
    assert message == f"cannot write to {mounts}: Read-only file system"
    assert contents(half_done) == before


def test_two_runs_in_one_folder(half_done: Path, undisturbed: Path) -> None:
    """The second one is refused while the first one goes on, and may follow once that one is killed."""
    file = half_done / "checkpoint.safetensors"
    began = file.stat().st_mtime_ns
    first = kill_resume.start(half_done)
    while first.is_alive() and file.stat().st_mtime_ns == began:
        time.sleep(0.002)
    os.kill(first.pid, signal.SIGSTOP)  # so that it cannot end meanwhile
    second = subprocess.run(
        [*TRAIN, "--resume", "--out", str(half_done)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert message_of(second) == (
        f"{half_done} is in use by another run: wait until it ends, or choose another --out"
    )
    first.kill()
    first.join()
    kill_resume.end(kill_resume.start(half_done))
    assert kill_resume.differences(half_done, undisturbed) == []


@pytest.mark.parametrize(
    ("kind", "number", "ends"),
    [
        pytest.param("write", 100, (2,), id="a checkpoint"),
        pytest.param("write", 113, (0,), id="a plot, which costs a line alone"),
        pytest.param(fail_resume.MEMORY, 200_000, (0, 2), id="memory"),
    ],
)
def test_a_failure_anywhere_loses_nothing(
    kind: str, number: int, ends: tuple[int, ...], undisturbed: Path, tmp_path: Path
) -> None:
    """Of writes near the end of a run, and of an allocation: trials of scripts/fail_resume.py."""
    if kind == fail_resume.MEMORY:
        pytest.importorskip("_testcapi", reason="only CPython's own test module lets an allocation fail")
    ended = fail_resume.trial(tmp_path / "run", kind, number)
    assert ended in [f"exit status {status}" for status in ends]
    assert kill_resume.differences(tmp_path / "run", undisturbed) == []


# ---- files that are not those of the run -----------------------------------------------------------------


def test_a_truncated_checkpoint(half_done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = half_done / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    assert resume_fails(half_done, capsys).startswith(f"{file} is torn, or not a safetensors file: ")


def test_a_checkpoint_of_another_model(half_done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = resume_fails(half_done, capsys, "--model", "simple_cnn")
    assert message.startswith("--resume: expected the run's own --model lenet5, got simple_cnn; ")
    file = half_done / "checkpoint.safetensors"
    saved = checkpoint.load(file)
    saved.config["model"] = "simple_cnn"
    checkpoint.save(file, saved)
    assert resume_fails(half_done, capsys).startswith(
        f"{file}: conv1.weight: expected float32 (32, 1, 3, 3), "
    )


Change = Callable[[Checkpoint], Any]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.config.pop("lr"), "its settings: expected lr, which is not there"),
        (lambda c: c.config.update(lr="0.1"), "its settings: lr: expected float, got '0.1'"),
        (lambda c: c.config.update(epochs=True), "its settings: epochs: expected int, got True"),
        (lambda c: c.config.update(turbo=1), "its settings: unexpected turbo"),
        (lambda c: setattr(c, "epoch", None), "its metadata: epoch: expected int, got None"),
        (
            lambda c: setattr(c, "class_names", []),
            "expected images and classes, got shape (1, 28, 28) and 0",
        ),
        (lambda c: setattr(c, "std", [0.0]), "std: expected numbers above 0, got 0.0"),
        (lambda c: setattr(c, "mean", [0.1, 0.2]), "mean: expected 1 finite numbers, got [0.1, 0.2]"),
    ],
)
def test_a_checkpoint_that_was_tampered_with(
    change: Change, message: str, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "checkpoint.safetensors"
    saved = checkpoint.load(undisturbed / file.name)
    change(saved)
    checkpoint.save(file, saved)
    assert resume_fails(tmp_path, capsys).startswith(f"{file}: {message}")


def test_a_claim_that_would_cost_memory_is_refused_before(undisturbed: Path, tmp_path: Path) -> None:
    saved = checkpoint.load(undisturbed / "best.safetensors")
    saved.image_shape = (1, 100_000, 100_000)
    checkpoint.save(tmp_path / "c.safetensors", saved)
    message = r"fc1.weight: expected float32 \(120, 9998400064\), got float32 \(120, 400\)"
    with pytest.raises(checkpoint.CheckpointError, match=message):
        load_model(tmp_path / "c.safetensors", "numpy")


def test_a_config_that_was_tampered_with_changes_nothing(half_done: Path, undisturbed: Path) -> None:
    """config.json tells; the checkpoint decides."""
    (half_done / "config.json").write_text('{"model": "resnet50", "seed": ')
    kill_resume.end(kill_resume.start(half_done))
    assert kill_resume.differences(half_done, undisturbed) == []


def test_an_image_changed_between_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(10):
            pixels = generator.integers(0, 256, (12, 12), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    out, dataset = tmp_path / "run", f"folder:{tmp_path / 'images'}"
    flags = ["--model", "lenet5", "--backend", "numpy", "--epochs", "1", "--dataset", dataset]
    train.main([*flags, "--out", str(out)])
    began_with = checkpoint.load(out / "checkpoint.safetensors").fingerprint[:12]
    changed = np.asarray(Image.open(tmp_path / "images" / "cat" / "3.png")).copy()
    changed[5, 5] ^= 1
    Image.fromarray(changed).save(tmp_path / "images" / "cat" / "3.png")
    message = resume_fails(out, capsys)
    expected = (
        f"the data are not those that the run began with: expected {dataset} with fingerprint {began_with}"
    )
    assert message.startswith(f"{out / 'checkpoint.safetensors'}: {expected}, got ")
    assert not message.endswith(began_with)


# ---- damaged files ---------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of memory are read from Linux's /proc")
def test_readers_read_or_refuse() -> None:
    """The short form of scripts/fuzz_readers.py."""
    for name, target in fuzz_readers.TARGETS.items():
        inputs = 5 * target.share
        result = fuzz_readers.fuzz(name, 0, inputs)
        assert result["first failures"] == []
        assert result["read"] + result["refused"] == inputs
        assert result["refused"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of memory are read from Linux's /proc")
def test_fuzzing_finds_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a reader that errs in each of the ways that count."""

    def read(path: Path) -> object:
        match path.read_text():
            case "wrong":
                raise KeyError("no such")
            case "slow":
                while True:
                    pass
            case "memory":
                return b"1" * (200 << 20)
            case "claim":
                try:
                    raise MemoryError
                except MemoryError as error:
                    raise ValueError("refused too late") from error
            case "bad":
                raise ValueError("not mine")
        return None

    monkeypatch.setattr(fuzz_readers, "SECONDS", 1)
    gc.collect()  # what other tests left would be freed meanwhile, and hide what is taken
    target = fuzz_readers.Target(read, lambda _: [], 1, 64)
    previous = signal.signal(signal.SIGPROF, fuzz_readers._too_long)
    outcomes = {}
    for text in ("good", "bad", "wrong", "slow", "memory", "claim"):
        (tmp_path / "input").write_text(text)
        outcomes[text] = fuzz_readers.try_input(target, tmp_path / "input")
    signal.signal(signal.SIGPROF, previous)
    assert re.fullmatch(r"took (199|20\d) MiB for a file of 6 bytes", outcomes.pop("memory"))
    assert outcomes == {
        "good": "read", "bad": "refused", "wrong": "KeyError: 'no such'", "slow": "took more than 1 s",
        "claim": "asked for too much memory",
    }  # fmt: skip
