"""The installed torch, found and asked for its versions without importing it, which takes seconds.

setup.py loads this file on its own, so it imports nothing of minicnn.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

INSTALL = "pip install torch ninja setuptools"


def place() -> Path | None:
    """What ``import torch`` would read, usually a folder; None if there is nothing.

    It need not be PyTorch: anything of that name in the working directory is found first.
    """
    try:
        spec = importlib.util.find_spec("torch")
    except ValueError:  # a module of this name is imported that was not found in the usual way
        return None
    if spec is None:
        return None
    folders = spec.submodule_search_locations or [spec.origin or "torch"]
    return Path(next(iter(folders)))


def missing() -> str | None:
    """Why torch cannot be used, and how to fix it; None if it is there."""
    found = place()
    if found is None:
        return f"torch is not installed; install it with: {INSTALL}"
    if version() is None:
        return f"{found} is not PyTorch; rename it or start in another folder, and if need be: {INSTALL}"
    return None


def version() -> str | None:
    """torch's version, such as 2.6.0+cu126; None if there is no torch."""
    return _said(r"__version__")


def release(version: str | None) -> str | None:
    """A version without the name of PyTorch's own build: 2.6.0 of 2.6.0+cpu and of 2.6.0+cu126.

    Those builds of a release have the same classes and symbols on the CPU.  Any other name stays, since
    it is not known what such a build has.
    """
    return version and re.sub(r"\+(cpu|cu\d+)$", "", version)


def cuda_version() -> str | None:
    """The CUDA version that torch was built with; None for a CPU build."""
    return _said("cuda")


def _said(name: str) -> str | None:
    """The text that torch's version.py gives to a name."""
    found = place()
    try:
        text = "" if found is None else (found / "version.py").read_text()
    except OSError:
        return None
    match = re.search(rf"^{name}\b[^=]*=\s*'([^']*)'", text, re.MULTILINE)
    return match.group(1) if match else None
