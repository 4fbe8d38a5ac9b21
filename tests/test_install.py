"""`make train` where nothing is installed: what it says, what it installs, and how it ends."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYTHON = """#!/bin/sh
echo "$@" >> "{folder}/calls"
case "$*" in
*"index versions"*) echo "Available versions: {versions}" ;;
scripts/install.py*) exec "{python}" -S -c 'import runpy, sys
sys.argv, sys.executable = sys.argv[1:], "{folder}/bin/python"
runpy.run_path(sys.argv[0], run_name="__main__")' "$@" ;;
esac
"""


def make_train(
    folder: Path, *settings: str, versions: str = "2.14.1, 2.13.0"
) -> tuple[list[str], list[str]]:
    """The lines that `make train` prints, and pip's arguments; it runs a Python that installs nothing."""
    if shutil.which("make") is None or shutil.which("g++") is None:
        pytest.skip("make or g++ is not installed")
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text(PYTHON.format(folder=folder, versions=versions, python=sys.executable))
    python.chmod(0o755)
    command = ["make", "--no-print-directory", "train", f"VENV={folder}", *settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    calls = (folder / "calls").read_text().splitlines()
    return done.stdout.splitlines(), [call.removeprefix("-m pip ") for call in calls if " pip " in call]


def test_it_says_how_large_the_installation_is_and_ends_with_what_is_next(tmp_path: Path) -> None:
    said, pip = make_train(tmp_path)
    assert said[0].startswith("Installing PyTorch with CUDA's libraries: 3 GB to download, 6 GB on disk")
    assert pip[0].startswith("install torch>=")
    assert pip[1] == f"install --editable {ROOT}[torch]"
    assert said[-1].startswith("Next: ")
    assert not any("--quiet" in call for call in pip)  # it shows its progress


def test_torch_without_cuda_is_taken_where_there_is_one(tmp_path: Path) -> None:
    said, pip = make_train(tmp_path, "TORCH=cpu", versions="2.14.1, 2.13.0+cpu, 2.13.0, 2.12.0+cpu")
    assert "0.2 GB to download" in said[1]
    assert pip[1] == "install --no-deps torch==2.13.0+cpu"


def test_where_there_is_none_it_says_so_and_takes_the_usual_one(tmp_path: Path) -> None:
    said, pip = make_train(tmp_path, "TORCH=cpu")
    assert said[1].startswith("No index that pip knows has PyTorch without CUDA, so it is the usual one")
    assert pip[1].startswith("install torch>=")


def test_without_torch_little_is_installed(tmp_path: Path) -> None:
    said, pip = make_train(tmp_path, "BACKEND=numpy")
    assert "0.1 GB to download" in said[0]
    assert pip == [f"install --editable {ROOT}"]
