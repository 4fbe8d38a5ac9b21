"""The cpp backend: the compiled CPU module behind the contract.

Arrays are ``torch.Tensor``, used as storage only.  Images and convolution weights are channels-last in
memory; every operation takes any order and converts what it must.  Checks, error messages and memory
are the module's (csrc/host/host.h).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from minicnn.backends import build
from minicnn.backends.base import Backend, BackendUnavailable, Conv, Gradients, Pool
from minicnn.backends.primitives import Array, Pair

if TYPE_CHECKING:
    import torch


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

    # ---- convolution -------------------------------------------------------------------------

    def conv2d_forward(
        self, x: Array, weight: Array, bias: Array | None, *,
        stride: Pair, padding: Pair, dilation: Pair, groups: int,
    ) -> Array:  # fmt: skip
        return self._module.conv2d_forward(x, weight, bias, stride, padding, dilation, groups, False)

    def conv2d_backward(
        self, dy: Array, x: Array, weight: Array, *,
        stride: Pair, padding: Pair, dilation: Pair, groups: int,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> Gradients:  # fmt: skip
        gradients: Gradients = self._module.conv2d_backward(
            dy, None, x, weight, stride, padding, dilation, groups, need_dx, need_dw, need_db
        )
        return gradients

    def conv2d_relu_forward(
        self, x: Array, weight: Array, bias: Array | None, *, conv: Conv, need_saved: bool = True
    ) -> tuple[Array, Any]:
        y = self._module.conv2d_forward(x, weight, bias, *conv, True)
        return y, y if need_saved else None

    def conv2d_relu_backward(
        self, dy: Array, x: Array, weight: Array, saved: Any, *, conv: Conv,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> Gradients:  # fmt: skip
        gradients: Gradients = self._module.conv2d_backward(
            dy, saved, x, weight, *conv, need_dx, need_dw, need_db
        )
        return gradients

    def conv2d_max_pool2d_forward(
        self, x: Array, weight: Array, bias: Array | None, *, conv: Conv, pool: Pool,
        need_saved: bool = True,
    ) -> tuple[Array, Any]:  # fmt: skip
        fused = self._module.conv2d_pool_forward(x, weight, bias, *conv, *pool, False, need_saved)
        if fused is None:
            return super().conv2d_max_pool2d_forward(
                x, weight, bias, conv=conv, pool=pool, need_saved=need_saved
            )
        y, winner = fused
        return y, winner

    def conv2d_max_pool2d_backward(
        self, dy: Array, x: Array, weight: Array, saved: Any, *, conv: Conv, pool: Pool,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> Gradients:  # fmt: skip
        if isinstance(saved, tuple):  # the forward pass was composed
            return super().conv2d_max_pool2d_backward(
                dy, x, weight, saved, conv=conv, pool=pool,
                need_dx=need_dx, need_dw=need_dw, need_db=need_db,
            )  # fmt: skip
        gradients: Gradients = self._module.conv2d_pool_backward(
            dy, saved, x, weight, *conv, *pool, False, need_dx, need_dw, need_db
        )
        return gradients

    def conv2d_relu_max_pool2d_forward(
        self, x: Array, weight: Array, bias: Array | None, *, conv: Conv, pool: Pool,
        need_saved: bool = True,
    ) -> tuple[Array, Any]:  # fmt: skip
        fused = self._module.conv2d_pool_forward(x, weight, bias, *conv, *pool, True, need_saved)
        if fused is None:
            return super().conv2d_relu_max_pool2d_forward(
                x, weight, bias, conv=conv, pool=pool, need_saved=need_saved
            )
        y, winner = fused
        return y, winner

    def conv2d_relu_max_pool2d_backward(
        self, dy: Array, x: Array, weight: Array, saved: Any, *, conv: Conv, pool: Pool,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> Gradients:  # fmt: skip
        if isinstance(saved, tuple):  # the forward pass was composed
            return super().conv2d_relu_max_pool2d_backward(
                dy, x, weight, saved, conv=conv, pool=pool,
                need_dx=need_dx, need_dw=need_dw, need_db=need_db,
            )  # fmt: skip
        gradients: Gradients = self._module.conv2d_pool_backward(
            dy, saved, x, weight, *conv, *pool, True, need_dx, need_dw, need_db
        )
        return gradients

    # ---- pooling -----------------------------------------------------------------------------

    def max_pool2d_forward(
        self, x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
        ceil_mode: bool, need_argmax: bool = True,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        y, argmax = self._module.max_pool2d_forward(
            x, kernel_size, stride, padding, dilation, ceil_mode, need_argmax
        )
        return y, argmax

    def max_pool2d_backward(
        self, dy: Array, argmax: Array, *, input_shape: tuple[int, ...], kernel_size: Pair,
        stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool,
    ) -> Array:  # fmt: skip
        return self._module.max_pool2d_backward(
            dy, argmax, input_shape, kernel_size, stride, padding, dilation, ceil_mode
        )

    def avg_pool2d_forward(
        self, x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, ceil_mode: bool,
        count_include_pad: bool,
    ) -> Array:  # fmt: skip
        return self._module.avg_pool2d_forward(
            x, kernel_size, stride, padding, ceil_mode, count_include_pad
        )

    def avg_pool2d_backward(
        self, dy: Array, *, input_shape: tuple[int, ...], kernel_size: Pair, stride: Pair,
        padding: Pair, ceil_mode: bool, count_include_pad: bool,
    ) -> Array:  # fmt: skip
        return self._module.avg_pool2d_backward(
            dy, input_shape, kernel_size, stride, padding, ceil_mode, count_include_pad
        )

    def adaptive_avg_pool2d_forward(self, x: Array, *, output_size: Pair) -> Array:
        return self._module.adaptive_avg_pool2d_forward(x, output_size)

    def adaptive_avg_pool2d_backward(self, dy: Array, *, input_shape: tuple[int, ...]) -> Array:
        return self._module.adaptive_avg_pool2d_backward(dy, input_shape)

    # ---- activations and dense ---------------------------------------------------------------

    def relu_forward(self, x: Array) -> Array:
        return self._module.relu_forward(x)

    def relu_backward(self, dy: Array, y: Array) -> Array:
        return self._module.relu_backward(dy, y)

    def dense_forward(self, x: Array, weight: Array, bias: Array | None) -> Array:
        return self._module.dense_forward(x, weight, bias, False)

    def dense_backward(
        self, dy: Array, x: Array, weight: Array, *,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> Gradients:  # fmt: skip
        gradients: Gradients = self._module.dense_backward(dy, None, x, weight, need_dx, need_dw, need_db)
        return gradients

    def dense_relu_forward(
        self, x: Array, weight: Array, bias: Array | None, *, need_saved: bool = True
    ) -> tuple[Array, Any]:
        y = self._module.dense_forward(x, weight, bias, True)
        return y, y if need_saved else None

    def dense_relu_backward(
        self, dy: Array, x: Array, weight: Array, saved: Any, *,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> Gradients:  # fmt: skip
        gradients: Gradients = self._module.dense_backward(dy, saved, x, weight, need_dx, need_dw, need_db)
        return gradients

    # ---- batch norm and dropout ----------------------------------------------------------------

    def batch_norm2d_forward(
        self, x: Array, weight: Array | None, bias: Array | None,
        running_mean: Array | None, running_var: Array | None, *,
        training: bool, momentum: float, eps: float,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        y, mean, invstd = self._module.batch_norm2d_forward(
            x, None, weight, bias, running_mean, running_var, training, momentum, eps, False
        )
        return y, mean, invstd

    def batch_norm2d_backward(
        self, dy: Array, x: Array, weight: Array | None, mean: Array, invstd: Array, *,
        training: bool, need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> Gradients:  # fmt: skip
        dx, _, dw, db = self._module.batch_norm2d_backward(
            dy, None, x, weight, mean, invstd, training, need_dx, need_dw, need_db, False
        )
        return dx, dw, db

    def batch_norm2d_relu_forward(
        self, x: Array, weight: Array | None, bias: Array | None,
        running_mean: Array | None, running_var: Array | None, *,
        training: bool, momentum: float, eps: float, need_saved: bool = True,
    ) -> tuple[Array, Any]:  # fmt: skip
        saved = self._module.batch_norm2d_forward(
            x, None, weight, bias, running_mean, running_var, training, momentum, eps, True
        )
        return saved[0], saved if need_saved else None

    def batch_norm2d_relu_backward(
        self, dy: Array, x: Array, weight: Array | None, saved: Any, *, training: bool,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> Gradients:  # fmt: skip
        y, mean, invstd = saved
        dx, _, dw, db = self._module.batch_norm2d_backward(
            dy, y, x, weight, mean, invstd, training, need_dx, need_dw, need_db, False
        )
        return dx, dw, db

    def batch_norm2d_add_relu_forward(
        self, x: Array, residual: Array, weight: Array | None, bias: Array | None,
        running_mean: Array | None, running_var: Array | None, *,
        training: bool, momentum: float, eps: float, need_saved: bool = True,
    ) -> tuple[Array, Any]:  # fmt: skip
        saved = self._module.batch_norm2d_forward(
            x, residual, weight, bias, running_mean, running_var, training, momentum, eps, True
        )
        return saved[0], saved if need_saved else None

    def batch_norm2d_add_relu_backward(
        self, dy: Array, x: Array, weight: Array | None, saved: Any, *, training: bool,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> tuple[Array | None, Array, Array | None, Array | None]:  # fmt: skip
        y, mean, invstd = saved
        gradients: tuple[Array | None, Array, Array | None, Array | None] = (
            self._module.batch_norm2d_backward(
                dy, y, x, weight, mean, invstd, training, need_dx, need_dw, need_db, True
            )
        )
        return gradients

    def batch_norm2d_relu_max_pool2d_forward(
        self, x: Array, weight: Array | None, bias: Array | None,
        running_mean: Array | None, running_var: Array | None, *,
        training: bool, momentum: float, eps: float, pool: Pool, need_saved: bool = True,
    ) -> tuple[Array, Any]:  # fmt: skip
        saved = self._module.batch_norm2d_pool_forward(
            x, weight, bias, running_mean, running_var, training, momentum, eps, *pool, need_saved
        )
        return saved[0], saved if need_saved else None

    def batch_norm2d_relu_max_pool2d_backward(
        self, dy: Array, x: Array, weight: Array | None, saved: Any, *, training: bool, pool: Pool,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> Gradients:  # fmt: skip
        y, argmax, mean, invstd = saved
        gradients: Gradients = self._module.batch_norm2d_pool_backward(
            dy, y, argmax, x, weight, mean, invstd, training, *pool, need_dx, need_dw, need_db
        )
        return gradients

    def fold_batch_norm2d(
        self, weight: Array, bias: Array | None, gamma: Array | None, beta: Array | None,
        running_mean: Array, running_var: Array, *, eps: float,
    ) -> tuple[Array, Array]:  # fmt: skip
        folded: tuple[Array, Array] = self._module.fold_batch_norm2d(
            weight, bias, gamma, beta, running_mean, running_var, eps
        )
        return folded

    def dropout_forward(self, x: Array, keep_mask: Array, *, p: float) -> Array:
        return self._module.dropout_forward(x, keep_mask, p)

    def dropout_backward(self, dy: Array, keep_mask: Array, *, p: float) -> Array:
        return self._module.dropout_backward(dy, keep_mask, p)

    # ---- softmax and the loss ------------------------------------------------------------------

    def softmax_forward(self, x: Array) -> Array:
        return self._module.softmax_forward(x)

    def softmax_backward(self, dy: Array, p: Array) -> Array:
        return self._module.softmax_backward(dy, p)

    def softmax_cross_entropy_forward(
        self, logits: Array, labels: Array, *,
        label_smoothing: float = 0.0, class_weight: Array | None = None,
    ) -> tuple[Array, Array]:  # fmt: skip
        loss, probs = self._module.softmax_cross_entropy_forward(
            logits, labels, label_smoothing, class_weight
        )
        return loss, probs

    def softmax_cross_entropy_backward(
        self, probs: Array, labels: Array, *,
        label_smoothing: float = 0.0, class_weight: Array | None = None,
    ) -> Array:  # fmt: skip
        return self._module.softmax_cross_entropy_backward(probs, labels, label_smoothing, class_weight)

    # ---- joining and reshaping -----------------------------------------------------------------

    def add_forward(self, a: Array, b: Array) -> Array:
        return self._module.add_forward(a, b, False)

    def add_backward(self, dy: Array) -> tuple[Array, Array]:
        da, db = self._module.add_backward(dy)
        return da, db

    def add_relu_forward(self, a: Array, b: Array, *, need_saved: bool = True) -> tuple[Array, Any]:
        y = self._module.add_forward(a, b, True)
        return y, y if need_saved else None

    def add_relu_backward(self, dy: Array, saved: Any) -> tuple[Array, Array]:
        return self.add_backward(self.relu_backward(dy, saved))

    def concat_forward(self, xs: Sequence[Array]) -> Array:
        return self._module.concat_forward(xs)

    def concat_backward(self, dy: Array, *, sizes: Sequence[int]) -> list[Array]:
        pieces: list[Array] = self._module.concat_backward(dy, sizes)
        return pieces

    def flatten_forward(self, x: Array) -> Array:
        return self._module.flatten_forward(x)

    def flatten_backward(self, dy: Array, *, input_shape: tuple[int, ...]) -> Array:
        return self._module.flatten_backward(dy, input_shape)

    # ---- optimizer steps -------------------------------------------------------------------------

    def sgd_step(
        self, params: Sequence[Array], grads: Sequence[Array], buffers: Sequence[Array], *,
        lr: float, momentum: float, weight_decay: float, nesterov: bool,
    ) -> None:  # fmt: skip
        self._module.sgd_step(params, grads, buffers, lr, momentum, weight_decay, nesterov)

    def adam_step(
        self, params: Sequence[Array], grads: Sequence[Array], exp_avgs: Sequence[Array],
        exp_avg_sqs: Sequence[Array], *, lr: float, beta1: float, beta2: float, eps: float,
        weight_decay: float, decoupled: bool, step: int,
    ) -> None:  # fmt: skip
        self._module.adam_step(
            params, grads, exp_avgs, exp_avg_sqs, lr, beta1, beta2, eps, weight_decay, decoupled, step
        )

    def rmsprop_step(
        self, params: Sequence[Array], grads: Sequence[Array], square_avgs: Sequence[Array],
        buffers: Sequence[Array], *, lr: float, alpha: float, eps: float, weight_decay: float,
        momentum: float,
    ) -> None:  # fmt: skip
        self._module.rmsprop_step(
            params, grads, square_avgs, buffers, lr, alpha, eps, weight_decay, momentum
        )

    def ema_update(self, averages: Sequence[Array], params: Sequence[Array], *, decay: float) -> None:
        self._module.ema_update(averages, params, decay)

    def global_norm(self, arrays: Sequence[Array]) -> float:
        norm: float = self._module.global_norm(arrays)
        return norm

    def scale(self, arrays: Sequence[Array], factor: float) -> None:
        self._module.scale(arrays, factor)
