"""Installs minicnn into this environment and says before how large that is; `make train` calls it.

    python scripts/install.py [numpy | torch | torch-cpu]

On Linux torch brings CUDA's libraries.  With ``torch-cpu`` it is the build without them, if an index that
pip knows has it (PyTorch has one of its own: set PIP_EXTRA_INDEX_URL to its address); otherwise it is the
usual one, and a line says so.  Only the standard library is used.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASE = "NumPy, SciPy, scikit-learn, matplotlib: 0.1 GB to download, 0.4 GB on disk"
WITH_CUDA = (
    "PyTorch with CUDA's libraries: 3 GB to download, 6 GB on disk; some 5 minutes at 100 Mbit/s. "
    "TORCH=cpu takes a fifteenth of it, BACKEND=numpy none"
)
WITHOUT_CUDA = "PyTorch without CUDA: 0.2 GB to download, 0.7 GB on disk"
"""What is installed, as measured on Linux with an x86-64 processor, Python 3.11 and torch 2.13 and 2.14."""


def pip(*words: str) -> None:
    """Run pip, which shows its progress.  Its failure ends this program with its status."""
    status = subprocess.run([sys.executable, "-m", "pip", *words]).returncode
    if status:
        sys.exit(status)


def cpu_build() -> str | None:
    """The newest torch without CUDA that pip finds, such as 2.13.0+cpu; None if it finds none."""
    print("Looking for a build of PyTorch without CUDA.", flush=True)
    command = [sys.executable, "-m", "pip", "index", "versions", "torch"]
    listed = subprocess.run(command, capture_output=True, text=True).stdout
    found = re.search(r"(?<![\w.])\d+(\.\d+)*\+cpu\b", listed)
    return found and found[0]


def needed() -> list[str]:
    """The extra "torch" of pyproject.toml: torch, and what builds with it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["optional-dependencies"]["torch"])


def install_torch(without_cuda: bool) -> None:
    """Install torch, unless there is one."""
    if importlib.util.find_spec("torch") and importlib.util.find_spec("ninja"):
        print("PyTorch is installed already; for another one, run first: make clean", flush=True)
        return
    version = cpu_build() if without_cuda else None
    if version is None:
        if without_cuda:
            print(
                "No index that pip knows has PyTorch without CUDA, so it is the usual one; "
                "PIP_EXTRA_INDEX_URL may name PyTorch's own index of CPU builds."
            )
        print(f"Installing {WITH_CUDA}.", flush=True)
    else:
        print(f"Installing {WITHOUT_CUDA}.", flush=True)
        pip("install", "--no-deps", f"torch=={version}")
    pip("install", *needed())


def main() -> None:
    """Install what the argument names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", default="torch", choices=("numpy", "torch", "torch-cpu"))
    what = parser.parse_args().what
    if what != "numpy":
        install_torch(without_cuda=what == "torch-cpu")
    print(f"Installing {BASE}.", flush=True)
    pip("install", "--editable", str(ROOT) if what == "numpy" else f"{ROOT}[torch]")
    if what != "numpy":
        print("The C++ kernels are compiled when they are first used, which takes some minutes, once.")


if __name__ == "__main__":
    main()
