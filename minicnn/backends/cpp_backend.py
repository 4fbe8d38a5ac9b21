"""The cpp backend: the table from the contract's names to the functions of the compiled CPU module.

Arrays are ``torch.Tensor``, used as storage only.  Images and convolution weights are channels-last in
memory; every operation takes any memory order and converts where it must.  The module's functions have
the contract's names, arguments and defaults (csrc/host), check their arguments and allocate their results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from minicnn.backends import build
from minicnn.backends.base import Backend, BackendUnavailable

if TYPE_CHECKING:
    import torch


class Compiled:
    """An operation that the backend's compiled module has under the same name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, backend: CppBackend | None, owner: type) -> Any:
        return self if backend is None else getattr(backend._module, self._name)


class CppBackend(Backend):
    """Fused C++ kernels on the CPU.  Raises BackendUnavailable if they can be neither loaded nor built."""

    name: ClassVar[str] = "cpp"

    def __init__(self) -> None:
        try:
            self._module: Any = build.load()
        except build.BuildError as error:
            raise BackendUnavailable(f"cpp: {error}") from error
        import torch

        self._torch = torch

    # ---- arrays ------------------------------------------------------------------------------

    def asarray(self, a: np.ndarray) -> torch.Tensor:
        a = np.asarray(a)
        if not a.dtype.isnative:
            a = a.astype(a.dtype.newbyteorder("="))
        if not a.flags.writeable or not a.flags.aligned or any(stride < 0 for stride in a.strides):
            a = a.copy()
        tensor = self._torch.from_numpy(a)
        if tensor.dim() == 4:
            return tensor.contiguous(memory_format=self._torch.channels_last)
        return tensor.contiguous()

    def to_numpy(self, a: torch.Tensor) -> np.ndarray:
        return a.detach().numpy()

    def synchronize(self) -> None:
        """Nothing is queued on the CPU."""

    # ---- primitives --------------------------------------------------------------------------

    conv2d_forward = Compiled()
    conv2d_backward = Compiled()
    max_pool2d_forward = Compiled()
    max_pool2d_backward = Compiled()
    avg_pool2d_forward = Compiled()
    avg_pool2d_backward = Compiled()
    adaptive_avg_pool2d_forward = Compiled()
    adaptive_avg_pool2d_backward = Compiled()
    relu_forward = Compiled()
    relu_backward = Compiled()
    dense_forward = Compiled()
    dense_backward = Compiled()
    batch_norm2d_forward = Compiled()
    batch_norm2d_backward = Compiled()
    fold_batch_norm2d = Compiled()
    dropout_forward = Compiled()
    dropout_backward = Compiled()
    softmax_forward = Compiled()
    softmax_backward = Compiled()
    softmax_cross_entropy_forward = Compiled()
    softmax_cross_entropy_backward = Compiled()
    add_forward = Compiled()
    add_backward = Compiled()
    concat_forward = Compiled()
    concat_backward = Compiled()
    flatten_forward = Compiled()
    flatten_backward = Compiled()
    sgd_step = Compiled()
    adam_step = Compiled()
    rmsprop_step = Compiled()
    ema_update = Compiled()
    global_norm = Compiled()
    scale = Compiled()

    # ---- fused operations ----------------------------------------------------------------------

    conv2d_relu_forward = Compiled()
    conv2d_relu_backward = Compiled()
    conv2d_max_pool2d_forward = Compiled()
    conv2d_max_pool2d_backward = Compiled()
    conv2d_relu_max_pool2d_forward = Compiled()
    conv2d_relu_max_pool2d_backward = Compiled()
    dense_relu_forward = Compiled()
    dense_relu_backward = Compiled()
    add_relu_forward = Compiled()
    add_relu_backward = Compiled()
    batch_norm2d_relu_forward = Compiled()
    batch_norm2d_relu_backward = Compiled()
    batch_norm2d_add_relu_forward = Compiled()
    batch_norm2d_add_relu_backward = Compiled()
    batch_norm2d_relu_max_pool2d_forward = Compiled()
    batch_norm2d_relu_max_pool2d_backward = Compiled()
