"""The machine's measured peak of float32 multiply-adds, which the kernels' rates are shares of."""

from __future__ import annotations

import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path


@cache
def peak_gflops(threads: int) -> float:
    """GFLOP/s that benchmarks/peak.cpp reaches with this many threads."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "peak")
        source = str(Path(__file__).with_name("peak.cpp"))
        compiler = os.environ.get("CXX", "g++")
        subprocess.run([compiler, "-O3", "-march=native", "-pthread", source, "-o", program], check=True)
        return float(
            subprocess.run([program, str(threads)], capture_output=True, text=True, check=True).stdout
        )
