"""The cpp backend: the compiled CPU module, and how arrays get to it.

Arrays are ``torch.Tensor``, used as storage only.  Images and convolution weights are channels-last in
memory; every operation takes any memory order and converts where it must.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from minicnn.backends import build
from minicnn.backends.base import Backend, BackendUnavailable
from minicnn.backends.tables import CompiledTable
from minicnn.ops.cast import bfloat16
from minicnn.shapes import is_bfloat16

if TYPE_CHECKING:
    import torch


_MANY_VALUES = 32768
"""torch copies arrays of so many values with several threads."""


class CppBackend(CompiledTable):
    """Fused C++ kernels on the CPU.  Raises BackendUnavailable if they can be neither loaded nor built."""

    name: ClassVar[str] = "cpp"

    def __init__(self) -> None:
        try:
            self._module = build.load()
        except build.BuildError as error:
            raise BackendUnavailable(f"cpp: {error}") from error
        import torch

        self._torch = torch
        self._floats = (torch.float32, torch.float64, torch.bfloat16)

    # ---- arrays ------------------------------------------------------------------------------

    def asarray(self, a: np.ndarray) -> torch.Tensor:
        a = np.asarray(a)
        if not a.dtype.isnative:
            a = a.astype(a.dtype.newbyteorder("="))
        if not a.flags.writeable or not a.flags.aligned or any(stride < 0 for stride in a.strides):
            a = a.copy()
        tensor = self._tensor(a)
        if tensor.dim() != 4:
            return tensor.contiguous()
        if self.name == "cpp" and tensor.numel() >= _MANY_VALUES and tensor.dtype in self._floats:
            return self._channels_last(tensor)
        return tensor.contiguous(memory_format=self._torch.channels_last)

    def _channels_last(self, tensor: torch.Tensor) -> torch.Tensor:
        """Images in the other memory order, without torch's threads: they would disturb what comes next."""
        if tensor.is_contiguous(memory_format=self._torch.channels_last) or not tensor.is_contiguous():
            return tensor.contiguous(memory_format=self._torch.channels_last)
        images: torch.Tensor = self.flatten_backward(tensor.flatten(1), input_shape=tuple(tensor.shape))
        return images

    def to_numpy(self, a: torch.Tensor) -> np.ndarray:
        if a.dtype == self._torch.bfloat16:
            return a.detach().view(self._torch.int16).numpy().view(bfloat16())
        return a.detach().numpy()

    def _tensor(self, a: np.ndarray) -> torch.Tensor:
        """A tensor on the array's memory; torch knows no array of bfloat16, but its bits."""
        if is_bfloat16(a):
            return self._torch.from_numpy(a.view(np.int16)).view(self._torch.bfloat16)
        return self._torch.from_numpy(a)

    def synchronize(self) -> None:
        """Nothing is queued on the CPU."""


def use_torch_threads(backend: Backend) -> None:
    """Let the cpp backend compute with torch's threads from now on: operations of torch run in between.

    Those wait for work actively for a long time after each operation of torch, and would keep others from
    the processor.
    """
    assert isinstance(backend, CppBackend)
    backend._module.use_torch_threads(True)
