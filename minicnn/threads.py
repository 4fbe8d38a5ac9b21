"""How many CPU threads minicnn computes with, and what becomes of them when the process forks."""

from __future__ import annotations

import os
import sys
from typing import Any


def set_num_threads(n: int) -> None:
    """Compute with ``n`` threads from now on, in NumPy's BLAS and in torch's pool, which cpp uses.

    The cpp backend gives the same bits for any ``n``; NumPy's BLAS may round differently.

    Raises: ValueError unless n is at least 1
    Torch:  torch.set_num_threads(n)
    """
    from threadpoolctl import threadpool_limits

    if n < 1:
        raise ValueError(f"threads: expected at least 1, got {n}")
    # The limit holds from here on: only a method of the object that this makes would lift it.
    threadpool_limits(limits=n)
    # The cpp backend may import torch later: torch then reads the number of threads from here.
    os.environ["OMP_NUM_THREADS"] = str(n)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n)


_PAUSE_HARD = 2
"""OpenMP's omp_pause_hard: end the threads."""


def _openmp_libraries() -> list[Any]:
    """The OpenMP that torch computes with, if it is loaded."""
    if "torch" not in sys.modules:
        return []
    from threadpoolctl import ThreadpoolController

    return [found.dynlib for found in ThreadpoolController().select(user_api="openmp").lib_controllers]


def _can_end_threads(openmp: Any) -> bool:
    return hasattr(openmp, "omp_pause_resource_all")


def _before_fork() -> None:
    """End the threads that OpenMP keeps for this thread's next computation, which starts new ones.

    A forked process has one thread.  OpenMP does not know that: operations of cpp and of torch would wait
    there for the others forever.
    """
    for openmp in filter(_can_end_threads, _openmp_libraries()):
        openmp.omp_pause_resource_all(_PAUSE_HARD)


def _after_fork_in_child() -> None:
    """Compute with one thread where OpenMP is too old to end the others before the fork."""
    if not all(map(_can_end_threads, _openmp_libraries())):
        sys.modules["torch"].set_num_threads(1)


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
