"""Operations on the shapes of real networks: a group for each operation, shape and direction.

In a group there is a row for each backend and each way to run PyTorch.  Outside the timing, every result is
compared with PyTorch's.
"""

from __future__ import annotations

from typing import Any

import pytest
from kernels import Kernel, check, kernels
from peak import peak_gflops, peak_gigabytes
from peers import PEERS
from rows import BACKENDS, THREADS


@pytest.mark.parametrize("row", [*BACKENDS, *PEERS])
@pytest.mark.parametrize("kernel", kernels(), ids=lambda kernel: kernel.name)
def test_kernel(benchmark: Any, kernel: Kernel, row: str) -> None:
    benchmark.group = kernel.name
    benchmark.extra_info["row"] = row
    results = benchmark.pedantic(kernel.make(row), rounds=10, warmup_rounds=2)
    check(kernel, row, results, kernel.make("torch eager")())
    if benchmark.stats is not None:  # it is None with --benchmark-disable
        rate = 1e-9 / benchmark.stats.stats.median
        benchmark.extra_info |= {
            "GFLOP/s": round(kernel.flops * rate, 1),
            "share of FMA peak": round(kernel.flops * rate / peak_gflops(THREADS), 3),
            "GB/s": round(kernel.bytes * rate, 1),
            "share of bandwidth": round(kernel.bytes * rate / peak_gigabytes(THREADS), 3),
        }
