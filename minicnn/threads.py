"""How many CPU threads minicnn computes with."""

from __future__ import annotations

import os
import sys


def set_num_threads(n: int) -> None:
    """Compute with ``n`` threads from now on: NumPy's BLAS, and torch's pool, which cpp uses.

    The cpp backend gives the same bits for any ``n``; NumPy's BLAS may round differently.

    Raises: ValueError unless n is at least 1
    Torch:  torch.set_num_threads(n)
    """
    from threadpoolctl import threadpool_limits

    if n < 1:
        raise ValueError(f"threads: expected at least 1, got {n}")
    # The limit holds when its object is made, and is lifted only by a call on that object.
    threadpool_limits(limits=n)
    # torch may be imported later, with the cpp backend: it then takes its number from here.
    os.environ["OMP_NUM_THREADS"] = str(n)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n)
