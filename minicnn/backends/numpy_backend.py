"""The NumPy backend: arrays are ``np.ndarray``."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from minicnn.backends.tables import NumpyTable


class NumpyBackend(NumpyTable):
    """Arrays are ``np.ndarray``; fused operations are the contract's compositions."""

    name: ClassVar[str] = "numpy"

    def asarray(self, a: np.ndarray) -> np.ndarray:
        a = np.asarray(a)
        return a if a.dtype.isnative else a.astype(a.dtype.newbyteorder("="))

    def to_numpy(self, a: np.ndarray) -> np.ndarray:
        return a

    def synchronize(self) -> None:
        """Nothing is queued on the CPU."""
