"""How many CPU threads minicnn computes with."""

from __future__ import annotations

import os
import sys


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
