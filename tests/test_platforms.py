"""The numpy backend and the commands need nothing that only POSIX systems have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minicnn.app.run_folder import RunFolder
from minicnn.backends import build

ONLY_POSIX = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
ONLY_POSIX_NAMES = (
    "O_CLOEXEC", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK", "fork", "register_at_fork",
    "sched_getaffinity", "sysconf",
)  # fmt: skip
"""What Windows does not have in os."""

TRAINING = f"""
import importlib, os, pkgutil, sys
import torch  # takes other names on Windows, so it is imported while all are there
for name in {ONLY_POSIX}:
    sys.modules[name] = None
for name in {ONLY_POSIX_NAMES}:
    delattr(os, name)
import minicnn
for module in pkgutil.walk_packages(minicnn.__path__, "minicnn."):
    if module.name != "minicnn.__main__" and "._c" not in module.name:
        importlib.import_module(module.name)
from minicnn import train
train.main([
    "--backend", "numpy", "--model", "lenet5", "--limit-train", "64", "--limit-test", "32",
    "--epochs", "1", "--out", sys.argv[1],
])
"""


def test_training_without_what_only_posix_has(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (out / "report.json").exists()


def test_compiled_modules_are_for_posix_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "name", "nt")
    told = build.missing()
    monkeypatch.undo()
    assert told == "compiled modules need Linux or another POSIX system; take the numpy backend, or WSL"


HOLDER = """
import sys, time
from pathlib import Path
from minicnn.app.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_holds_its_folder_until_it_ends_even_by_a_kill(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    command = [sys.executable, "-c", HOLDER, str(folder.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OSError, match="is in use by another run") as caught, folder.locked():
            pytest.fail("two processes hold one folder")
        assert str(caught.value) == (
            f"{folder.path} is in use by another run: wait until it ends, or choose another --out"
        )
        holder.send_signal(signal.SIGKILL)
    for _ in range(2):
        with folder.locked():
            assert folder.path.is_dir()


def test_a_lock_that_cannot_be_opened_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(OSError, match=f"^cannot write to {tmp_path}: Is a directory$"),
        RunFolder(tmp_path).locked(),
    ):
        pytest.fail("a folder is no lock")
