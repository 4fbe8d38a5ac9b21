"""The measured peaks of this machine, with which the kernels' rates are compared."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from functools import cache
from pathlib import Path


def peak_gflops(threads: int) -> float:
    """GFLOP/s of float32 multiply-adds that benchmarks/peak.cpp reaches with this many threads."""
    return _peak("fma", threads)


def peak_gigabytes(threads: int) -> float:
    """GB/s that a copy of large arrays reaches with this many threads; reading and writing both count."""
    return _peak("copy", threads)


@cache
def _peak(what: str, threads: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "peak")
        source = str(Path(__file__).with_name("peak.cpp"))
        compiler = shlex.split(os.environ.get("CXX", "g++"))
        subprocess.run([*compiler, "-O3", "-march=native", "-pthread", source, "-o", program], check=True)
        command = [program, what, str(threads)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
