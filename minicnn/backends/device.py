"""A device that computes while the host goes on, and what a step needs so as not to wait for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from minicnn.backends.base import Backend
from minicnn.backends.cuda_backend import CudaBackend

if TYPE_CHECKING:
    import torch

ONE_AT_A_TIME = threading.RLock()
"""Held while work is captured, and while a captured graph runs: torch captures on one stream of a
process, and the switch for TF32 belongs to the process too."""

MOST_QUEUED = 4
"""So many steps may wait in the device's queue: it never stands idle, and an error shows soon."""


class DeviceGraph(Protocol):
    """Work that was captured."""

    def replay(self) -> None:
        """Queue all of it again."""


class Device:
    """The device of a cuda backend.  See csrc/cuda/device_step.h for what it computes for a step."""

    def __init__(self, backend: CudaBackend) -> None:
        self._backend = backend
        self._torch: Any = backend._torch
        self._module: Any = backend._module
        self._queued: deque[Any] = deque()
        self.cross_entropy_gradient: Callable[..., torch.Tensor] = self._module.cross_entropy_gradient
        self.clip_norm: Callable[[list[torch.Tensor], float], None] = self._module.clip_norm

    def __reduce__(self) -> tuple[Any, ...]:
        return Device, (self._backend,)

    @property
    def tf32(self) -> bool:
        """Whether factors of float32 products may be rounded to TF32."""
        return bool(self._module.tf32())

    def empty(self, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        """An array in the backend's memory order, whose values are whatever they are."""
        order = self._torch.channels_last if len(shape) == 4 else self._torch.contiguous_format
        where = "cpu" if self._backend._emulated else "cuda"
        made: torch.Tensor = self._torch.empty(
            shape, dtype=getattr(self._torch, dtype), device=where, memory_format=order
        )
        return made

    def refill(self, array: torch.Tensor, values: np.ndarray | torch.Tensor) -> None:
        """Put other values, of the host or the device, into an array of the device."""
        if isinstance(values, np.ndarray):
            values = self._backend._staged(values)
        array.copy_(values, non_blocking=True)

    @contextmanager
    def numbers_from(self, numbers: torch.Tensor) -> Iterator[None]:
        """Within it, optimizer steps read the numbers that change from step to step from this array.

        They are float64: lr, step_size, bias_correction2_sqrt, keep and decay, as in
        csrc/cuda/core/step_numbers.h.
        """
        self._module.read_step_numbers(numbers)
        try:
            yield
        finally:
            self._module.read_step_numbers(None)

    def capture(self, work: Callable[[], object]) -> DeviceGraph:
        """All that ``work`` makes the device do, which it does only when the graph is replayed.

        Raises: RuntimeError if the work waits for the device, or brings arrays to it
        """
        with ONE_AT_A_TIME, self._backend._recording():
            if self._backend._emulated:
                from minicnn.backends.recorded import record

                recording: DeviceGraph = record(self._module.Recording(), work)
                return recording
            graph: DeviceGraph = self._torch.cuda.CUDAGraph()
            # Other threads, such as those that load images, may go on using the device.
            with self._torch.cuda.graph(graph, capture_error_mode="thread_local"):
                work()
            return graph

    def follow(self) -> None:
        """Wait until at most `MOST_QUEUED` steps are left to compute; call it after each step."""
        if self._backend._emulated:
            return
        done = self._torch.cuda.Event()
        done.record()
        self._queued.append(done)
        if len(self._queued) > MOST_QUEUED:
            self._queued.popleft().synchronize()


def device_of(backend: Backend) -> Device | None:
    """The device that this backend computes on; None if the host computes itself."""
    return Device(backend) if isinstance(backend, CudaBackend) else None
