"""Builds the C++ and CUDA files of assignments, and calls their functions on NumPy arrays.

A file includes ``task.h`` (in `HEADERS`).  Each function that it exports is one
``return task::run([&] { ... })``, so that an exception or a gap, ``not_implemented()``, comes back
as words.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from minicnn.backends.module_file import source_folder

HEADERS = Path(__file__).with_name("task")
"""The folder of task.h and of cuda_task.h, which has the emulation of CUDA too."""

_GAP = "not implemented"


class Kernels:
    """The exported functions of a shared library, as methods: ``kernels.forward(x, y, 3)``.

    Arrays are passed by their address, and must be C-contiguous; whole numbers are passed as int.
    """

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))

    def __getattr__(self, name: str) -> Any:
        try:
            function = self._library[name]
        except AttributeError:
            raise NotImplementedError(f"the file exports no function {name}") from None
        function.restype = ctypes.c_char_p

        def call(*arguments: Any) -> None:
            said = function(*map(_passed, arguments))
            if said is None:
                return
            words = said.decode(errors="replace")
            raise NotImplementedError(name) if words == _GAP else RuntimeError(words)

        return call


def build(source: Path, folder: Path, *, cuda: bool = False) -> Kernels:
    """Compile a file into ``folder`` with g++, or the compiler that CXX names.

    Args:   source: C++, or with ``cuda`` a .cu file, whose kernels the emulation runs on the CPU
    Raises: AssertionError with the compiler's messages; ValueError if there is no compiler
    """
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    if shutil.which(compiler[0]) is None:
        raise ValueError(f"[kernels] compiler: expected a program {compiler[0]}, got none")
    made = folder / f"{source.stem}.so"
    csrc = source_folder() if cuda else None
    command = [
        *compiler, "-std=c++20", "-O0" if cuda else "-O2", "-shared", "-fPIC", "-fvisibility=hidden",
        f"-I{HEADERS}",
        *([f"-I{csrc / 'cuda_emulation'}", f"-I{csrc}", "-x", "c++"] if csrc else []),
        str(source), "-o", str(made),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise AssertionError(f"{source.name} does not compile:\n{done.stderr[-3000:]}")
    return Kernels(made)


def _passed(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return ctypes.c_int(value)
    if not value.flags.c_contiguous:
        raise ValueError("[kernels] array: expected one that is C-contiguous")
    return ctypes.c_void_p(value.ctypes.data)
