"""The cuda backend: the contract on the CUDA module, on a GPU or emulated on the CPU.

Arrays are ``torch.Tensor`` on the device.  Both compiled modules offer the same functions
(csrc/host/bindings.h), so only how arrays get to the device and back is different from the cpp backend.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from minicnn.backends import build, cuda_build
from minicnn.backends.base import Backend, BackendUnavailable
from minicnn.backends.cpp_backend import CppBackend

if TYPE_CHECKING:
    import torch

PINNED_BYTES = 64 << 20
"""Host arrays up to this size reach the card by way of pinned memory, so that nobody waits for the copy."""


class CudaBackend(CppBackend):
    """CUDA kernels on the current GPU, or on the CPU if MINICNN_CUDA_EMULATION=1.

    Raises BackendUnavailable without a GPU, a driver, or a module for them.
    """

    name: ClassVar[str] = "cuda"

    def __init__(self) -> None:
        self._emulated, self._label = cuda_build.emulated(), cuda_build.label()
        reason = None if self._emulated else cuda_build.missing_gpu()
        if reason is not None:
            raise BackendUnavailable(f"cuda: {reason}")
        try:
            self._module: Any = build.load(cuda_build.module_spec())
        except build.BuildError as error:
            raise BackendUnavailable(f"cuda: {error}") from error
        import torch

        self._torch = torch
        self._capturing = threading.local()  # `on` in a thread that captures

    def __reduce__(self) -> tuple[Any, ...]:
        return _fetch, (self._module.tf32(),)

    @property
    def label(self) -> str:
        return self._label

    # ---- arrays ------------------------------------------------------------------------------

    def asarray(self, a: np.ndarray) -> torch.Tensor:
        self._refuse_in_capture("brings an array of the host to the device")
        tensor = self._staged(a)
        return tensor if self._emulated else tensor.cuda(non_blocking=True)

    def to_numpy(self, a: torch.Tensor) -> np.ndarray:
        self._refuse_in_capture("waits for the device")
        return super().to_numpy(a.cpu())

    def _staged(self, a: np.ndarray) -> torch.Tensor:
        """A tensor of the host from which a copy to the device need not be waited for.

        torch keeps pinned memory until such a copy is done.
        """
        tensor = super().asarray(a)
        if self._emulated or not 0 < tensor.nbytes <= PINNED_BYTES:
            return tensor
        return tensor.pin_memory()

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Within it, work is captured, and what cannot be repeated is refused."""
        self._capturing.on = True
        try:
            yield
        finally:
            self._capturing.on = False

    def _refuse_in_capture(self, what: str) -> None:
        if getattr(self._capturing, "on", False):
            raise RuntimeError(f"[cuda] captured work: expected none that {what}, got some")

    def synchronize(self) -> None:
        if not self._emulated:
            self._torch.cuda.synchronize()

    @contextmanager
    def multiplying(self, precision: str) -> Iterator[None]:
        before = self._module.tf32()
        self._module.set_tf32(before or precision == "tf32")
        try:
            yield
        finally:
            self._module.set_tf32(before)


def _fetch(tf32: bool) -> Backend:
    """What a pickled cuda backend becomes: the process's own, with the switch as it was."""
    backend = CudaBackend._shared()
    allow_tf32(backend, tf32)
    return backend


def allow_tf32(backend: Backend, on: bool) -> None:
    """Allow or forbid the cuda backend to round factors of float32 products to TF32, for tensor cores."""
    assert isinstance(backend, CudaBackend)
    backend._module.set_tf32(on)
