"""What the sections of scripts/gpu.py share: how things are timed, and the rows that they write.

A row is a dict with what, phase and precision, and figures by the name of the side that they belong to:
"minicnn", or a way to run torch.  Each row is passed to ``keep`` as soon as it is known, so that nothing
is lost when a section is stopped; `gpu_report.merged` puts the rows of the same thing together.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from minicnn.backends import cuda_build

Row = dict[str, Any]
Keep = Callable[[Row], None]
Work = Callable[[], Any]

EMULATED = cuda_build.emulated()  # if so, shapes and rounds are small, and the numbers mean nothing
DEVICE = "cpu" if EMULATED else "cuda"
PRECISIONS = ("float32", "tf32", "bfloat16")
WARM_UP, ROUNDS = (1, 1) if EMULATED else (5, 30)
TOGETHER = 1 if EMULATED else 10  # so many calls are timed at once where none is waited for
FLUSHED_BYTES = 256 * 1024 * 1024  # more than any card's second-level cache


def synchronize() -> None:
    """Wait until the device has done all that it was given."""
    if not EMULATED:
        torch.cuda.synchronize()


def alone(work: Work) -> float:
    """Milliseconds of the device for one call, from an empty second-level cache: the median."""
    for _ in range(WARM_UP):
        work()
    if EMULATED:
        return in_a_row(work)
    flush = torch.empty(FLUSHED_BYTES // 4, device=DEVICE)
    times = []
    for _ in range(ROUNDS):
        flush.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def waited(work: Work) -> float:
    """Milliseconds of a call whose result the host reads before it goes on: the median."""
    return _timed(lambda: float(work()), 1)


def in_a_row(work: Work) -> float:
    """Milliseconds of a call among many that nobody waits for: the median of many such rows."""
    return _timed(work, TOGETHER)


def _timed(work: Work, calls: int) -> float:
    for _ in range(WARM_UP):
        work()
    synchronize()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(calls):
            work()
        synchronize()
        times.append((time.perf_counter() - start) / calls)
    return 1000 * statistics.median(times)


def small(size: int, least: int) -> int:
    """The size, but at most ``least`` on the emulation, which is slow."""
    return min(size, least) if EMULATED else size


def allow_tf32(on: bool) -> None:
    """Allow or forbid that torch multiplies float32 in TF32."""
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    with torch.no_grad():
        got, expected = got.float(), expected.float()
        return float((got - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
