"""The NumPy backend: the table from the contract's names to the functions of `minicnn.ops`."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from minicnn.backends.base import Backend
from minicnn.ops import (
    adaptive_avg_pool2d,
    add,
    avg_pool2d,
    batch_norm2d,
    concat,
    conv2d,
    dense,
    dropout,
    flatten,
    fold_batch_norm2d,
    max_pool2d,
    optimizers,
    relu,
    softmax,
    softmax_cross_entropy,
)


class NumpyBackend(Backend):
    """Arrays are ``np.ndarray``; fused operations are the contract's compositions."""

    name: ClassVar[str] = "numpy"

    def asarray(self, a: np.ndarray) -> np.ndarray:
        a = np.asarray(a)
        return a if a.dtype.isnative else a.astype(a.dtype.newbyteorder("="))

    def to_numpy(self, a: np.ndarray) -> np.ndarray:
        return a

    def synchronize(self) -> None:
        """Nothing is queued on the CPU."""

    conv2d_forward = staticmethod(conv2d.conv2d_forward)
    conv2d_backward = staticmethod(conv2d.conv2d_backward)
    max_pool2d_forward = staticmethod(max_pool2d.max_pool2d_forward)
    max_pool2d_backward = staticmethod(max_pool2d.max_pool2d_backward)
    avg_pool2d_forward = staticmethod(avg_pool2d.avg_pool2d_forward)
    avg_pool2d_backward = staticmethod(avg_pool2d.avg_pool2d_backward)
    adaptive_avg_pool2d_forward = staticmethod(adaptive_avg_pool2d.adaptive_avg_pool2d_forward)
    adaptive_avg_pool2d_backward = staticmethod(adaptive_avg_pool2d.adaptive_avg_pool2d_backward)
    relu_forward = staticmethod(relu.relu_forward)
    relu_backward = staticmethod(relu.relu_backward)
    dense_forward = staticmethod(dense.dense_forward)
    dense_backward = staticmethod(dense.dense_backward)
    batch_norm2d_forward = staticmethod(batch_norm2d.batch_norm2d_forward)
    batch_norm2d_backward = staticmethod(batch_norm2d.batch_norm2d_backward)
    fold_batch_norm2d = staticmethod(fold_batch_norm2d.fold_batch_norm2d)
    dropout_forward = staticmethod(dropout.dropout_forward)
    dropout_backward = staticmethod(dropout.dropout_backward)
    softmax_forward = staticmethod(softmax.softmax_forward)
    softmax_backward = staticmethod(softmax.softmax_backward)
    softmax_cross_entropy_forward = staticmethod(softmax_cross_entropy.softmax_cross_entropy_forward)
    softmax_cross_entropy_backward = staticmethod(softmax_cross_entropy.softmax_cross_entropy_backward)
    add_forward = staticmethod(add.add_forward)
    add_backward = staticmethod(add.add_backward)
    concat_forward = staticmethod(concat.concat_forward)
    concat_backward = staticmethod(concat.concat_backward)
    flatten_forward = staticmethod(flatten.flatten_forward)
    flatten_backward = staticmethod(flatten.flatten_backward)
    sgd_step = staticmethod(optimizers.sgd_step)
    adam_step = staticmethod(optimizers.adam_step)
    rmsprop_step = staticmethod(optimizers.rmsprop_step)
    ema_update = staticmethod(optimizers.ema_update)
    global_norm = staticmethod(optimizers.global_norm)
    scale = staticmethod(optimizers.scale)
